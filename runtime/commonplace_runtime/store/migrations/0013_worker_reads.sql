-- What claude-mem's hooks and tools read from their local worker.
SELECT;
