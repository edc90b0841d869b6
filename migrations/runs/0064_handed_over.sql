-- Queued by a holder that shut down: it was being worked on, and whoever looks for dead holders takes it, too, so that it
-- does not wait for a place behind runs that began later. A former version neither sets nor heeds it.
alter table runs add column handed_over boolean not null default false;
