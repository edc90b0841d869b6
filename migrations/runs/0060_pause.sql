-- A run may rest: paused by somebody, or stopped by a budget. A resting run is
-- claimed by nobody, also by a former version, which knows neither status.
alter table runs drop constraint runs_status_check;
alter table runs add constraint runs_status_check check (
  status in ('QUEUED', 'RUNNING', 'PAUSED', 'BUDGET_EXHAUSTED', 'SUCCEEDED', 'FAILED', 'CANCELLED'));

alter table runs add column pause_requested boolean not null default false;
-- Why it rests: code and message. Null unless it does.
alter table runs add column rest jsonb;
-- When a resting run goes on by itself; null when it waits for somebody.
alter table runs add column wake_at timestamptz;
-- Raised by everything that may have ended the reason for a rest: a holder that
-- decided to rest on what it knew before is queued again instead.
alter table runs add column resumes integer not null default 0;

drop index runs_claimable;
create index runs_claimable on runs (created_at) where status in ('QUEUED', 'RUNNING') or wake_at is not null;
