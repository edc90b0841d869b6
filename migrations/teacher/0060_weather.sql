-- Whether calls to a teacher profile are made: one breaker for all replicas.
-- A profile is the operator's and the same for every project, and so is its
-- provider's weather: no project_id.
create table breakers (
  teacher_profile text primary key,
  state text not null check (state in ('closed', 'open', 'half_open')),
  -- Of the failure that opened it, or of the last that kept it open.
  code text not null,
  reason text not null,
  opened_at timestamptz not null,
  -- When the provider may be tried again; while it is being tried, when
  -- whoever does counts as dead.
  probe_at timestamptz not null,
  -- The run whose holder tries it: one that lost its lease counts as dead, too.
  probe_run_id uuid,
  probe_fence bigint,
  failed_probes integer not null default 0
);

-- How many calls each replica allows itself, for people to see.
create table senders (
  teacher_profile text not null,
  replica text not null,
  concurrency integer not null,
  under_way integer not null,
  seen_at timestamptz not null,
  primary key (teacher_profile, replica)
);

-- The same call of two runs at once: the second waits for the first's reply.
create index reservations_by_call on reservations (project_id, request_digest);
-- A call that was made again because its first try was lost with its holder.
create index calls_in_flight_at_crash on calls (project_id, request_digest)
  where error_code = 'in_flight_at_crash';
