-- Steps that a fork took over from the campaign that it was made of: they were
-- paid there, and count for nothing here.
alter table steps add column shared boolean not null default false;
-- A campaign that others were made of is not deleted before them.
create index runs_by_parent on runs ((request->'fork'->>'campaignId')) where request ? 'fork';
