-- What a project may use in a month of UTC, and what it has: in the schema of
-- every service that has long work, though only some spend what is counted.
-- platform/monthbudget.ts is the only reader and writer. What a former version spends while it still runs
-- is not counted here, and nothing of it is refused.
create table month_caps (
  project_id text not null,
  name text not null,
  cap double precision not null check (cap > 0),
  primary key (project_id, name)
);

-- What is under way counts for the most that it can use.
create table month_spending (
  project_id text not null,
  -- "2026-11".
  month text not null,
  name text not null,
  used double precision not null,
  primary key (project_id, month, name)
);

-- Marks that were passed, each told of once for each cap.
create table month_notices (
  project_id text not null,
  month text not null,
  name text not null,
  percent integer not null,
  cap double precision not null,
  primary key (project_id, month, name, percent, cap)
);
