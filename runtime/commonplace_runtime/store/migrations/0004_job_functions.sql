-- What the worker calls: claiming a session's jobs, and writing their results under the lease.
SELECT;
