-- Keys over HTTP, limits from the environment, and the audit as people read it.
SELECT;
