-- Erasure that reaches everything, in batches.
SELECT;
