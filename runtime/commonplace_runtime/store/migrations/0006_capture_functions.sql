-- Capture: sessions, and events under a policy.
SELECT 1;
