-- Jobs for people, usage and what autoscalers read.
SELECT 1;
