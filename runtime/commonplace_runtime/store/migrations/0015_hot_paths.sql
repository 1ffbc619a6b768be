-- The hot paths, measured and made cheaper.
SELECT;
