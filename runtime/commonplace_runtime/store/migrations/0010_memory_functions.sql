-- Memories and projects as resources: made, read, listed, changed and superseded.
SELECT;
