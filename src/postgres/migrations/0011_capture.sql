-- How a source is captured.

alter table millrace.source add column capture text not null default 'trigger'
  check (capture in ('trigger', 'strict', 'poll'));
comment on column millrace.source.capture is
  'trigger: an event at each change; strict: the same, written at commit in the order of the changes; poll: found by a '
  'poller, without triggers.';

create function millrace.write_capture(s millrace.source) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format($code$create or replace function millrace.%I() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
    set extra_float_digits = 1 set lc_monetary = 'C' set quote_all_identifiers = off set standard_conforming_strings = on
    as %L$code$, 'capture_' || s.relid, millrace.capture_body(s));
  execute format('comment on function millrace.%I() is %L', 'capture_' || s.relid,
    'Captures ' || s.name || '. Written by millrace.watch.');
end $$;
comment on function millrace.write_capture(millrace.source) is
  'Writes the trigger function of a source, from its row alone. Part of millrace.watch and of adopting restored tables.';

revoke all on function millrace.write_capture(millrace.source) from public;
