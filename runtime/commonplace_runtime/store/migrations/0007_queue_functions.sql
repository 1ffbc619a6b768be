-- The queue: taking turns between teams, budgets, results.
SELECT 1;
