-- Where a project's events are sent.
create table webhooks (
  id uuid primary key default gen_random_uuid(),
  project_id text not null,
  url text not null,
  description text not null default '',
  -- Empty for all.
  event_types text[] not null default '{}',
  -- "whsec_…". It makes signatures, so it is kept as it is.
  secret text not null,
  -- Signs beside the secret until then, after a rotation.
  previous_secret text,
  previous_secret_until timestamptz,
  -- Null while enabled.
  disabled_reason text,
  -- The receiver asked for a pause.
  paused_until timestamptz,
  created_at timestamptz not null default now(),
  unique (project_id, url)
);

-- An event for one webhook, written in the event's transaction. Without
-- foreign keys: neither a webhook that is being deleted nor its many
-- deliveries may hold up or refuse a campaign's event. What is left without a
-- webhook is never sent, and swept.
create table deliveries (
  id uuid primary key default gen_random_uuid(),
  number bigint not null generated always as identity,
  project_id text not null,
  webhook_id uuid not null,
  -- Null for a test.
  campaign_id uuid,
  sequence bigint,
  type text not null,
  -- What is signed and sent, byte for byte. A copy: a campaign may be deleted
  -- before its last event is delivered.
  body text not null,
  status text not null default 'PENDING' check (status in ('PENDING', 'DELIVERED', 'DEAD')),
  attempts integer not null default 0,
  -- Raised by every claim and by whoever asks for it again. What a claim's
  -- holder says carries its fence and is dropped when that is old.
  fence bigint not null default 0,
  -- Not tried before this; a claim moves it to the end of its lease.
  due_at timestamptz not null default now(),
  -- End of the claim's lease; null while nobody sends it.
  sending_until timestamptz,
  give_up_at timestamptz not null default now() + interval '24 hours',
  last_attempt_at timestamptz,
  last_http_status integer,
  last_error text,
  created_at timestamptz not null default now(),
  finished_at timestamptz
);
create index deliveries_due on deliveries (webhook_id, due_at, number) where status = 'PENDING';
create index deliveries_sending on deliveries (webhook_id, sending_until)
  where status = 'PENDING' and sending_until is not null;
create index deliveries_by_webhook on deliveries (webhook_id, number);
create index deliveries_finished on deliveries (finished_at) where status <> 'PENDING';
create index deliveries_by_campaign on deliveries (campaign_id);
