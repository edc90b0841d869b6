-- Seed rows that somebody should look at: opened by the campaign's holder, decided
-- through the API, taken up by the holder at its next orders.
create table reviews (
  project_id text not null,
  campaign_id uuid not null references runs (id) on delete cascade,
  seed_row_id text not null,
  -- The order in which they came into doubt.
  number bigint not null generated always as identity,
  kind text not null,
  status text not null default 'REVIEW_STATUS_OPEN',
  -- A task.v1.Row.
  seed_row jsonb not null,
  -- campaigns.v1.ReviewEvidence, in the order of iterations.
  evidence jsonb not null,
  proposed_output text not null default '',
  output text not null default '',
  reading text not null default 'DISPUTES_UNSPECIFIED',
  opened_at timestamptz not null default now(),
  decided_at timestamptz,
  decided_by text not null default '',
  -- The iteration that took the decision up; it does not change after that.
  acted_iteration integer,
  new_row_id text not null default '',
  primary key (campaign_id, seed_row_id)
);
create index reviews_in_order on reviews (campaign_id, number);
