-- Campaigns themselves are rows of "runs"; here is what they leave behind.

-- A step's output, stored once in the transaction of its effects. After a
-- restart the loop runs again from its first line and finds what was done.
create table steps (
  project_id text not null,
  campaign_id uuid not null references runs (id) on delete cascade,
  name text not null,
  -- Null for a step that has only effects.
  output jsonb,
  seconds double precision not null,
  finished_at timestamptz not null default now(),
  primary key (campaign_id, name)
);

create table iterations (
  project_id text not null,
  campaign_id uuid not null references runs (id) on delete cascade,
  number integer not null,
  -- A campaigns.v1.Iteration.
  iteration jsonb not null,
  primary key (campaign_id, number)
);

create table candidates (
  project_id text not null,
  campaign_id uuid not null references runs (id) on delete cascade,
  number bigint not null,
  iteration integer not null,
  accepted boolean not null,
  -- A campaigns.v1.Candidate.
  candidate jsonb not null,
  primary key (campaign_id, number)
);
create index candidates_by_iteration on candidates (campaign_id, iteration, number);

create table events (
  project_id text not null,
  campaign_id uuid not null references runs (id) on delete cascade,
  -- From 1, without gaps.
  sequence bigint not null,
  at timestamptz not null default now(),
  type text not null,
  payload jsonb not null,
  primary key (campaign_id, sequence)
);
