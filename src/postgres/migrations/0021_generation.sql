-- A database that was restored does not know which generations were given out after its backup was taken, and their holders may
-- still speak: a group's member would be taken for another one that has its number now. So a new epoch begins with generations
-- that nobody has had: a million claims are more than anything that a backup misses.

create function millrace.skip_generations() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform setval('millrace.subscription_generation', nextval('millrace.subscription_generation') + 1048576);
  return null;
end $$;
comment on function millrace.skip_generations() is
  'Makes the generations of a new epoch others than those that were given since its backup was taken.';

create trigger skip_generations after insert on millrace.epoch
for each statement execute function millrace.skip_generations();

revoke all on function millrace.skip_generations() from public;
