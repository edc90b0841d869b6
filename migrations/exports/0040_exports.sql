-- The training service's second kind of long work has run rows of its own: a
-- worker of trainings must never claim an export, nor the reverse. What an
-- export made stands in `state`; its files lie in the artifact store.
comment on table runs is 'Exports of checkpoints, one row an attempt; platform/runs.ts reads and writes it.';
