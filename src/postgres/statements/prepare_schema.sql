-- Makes the schema and finds or makes its owner; the caller then becomes that owner with SET LOCAL ROLE.
--
-- The owner is millrace_owner, a role that nobody logs in as and that owns nothing else: capture runs with its rights.
-- Where the caller can neither make that role nor become it, the caller owns the schema: safe, for capture runs nobody's
-- code but its own, only less narrow.
--
-- Everything that is captured must have a UTF-8 form, or the one event that has none would stop the feed for everybody.
-- UTF8 has one by definition, and so have the encodings of single bytes of which each is mapped. SQL_ASCII holds any bytes
-- under no name, and the other encodings hold characters that conversions do not know.
--
-- Roles belong to the whole server: two databases that migrate at once both want to make it, and the later one waits
-- for the first and then finds it there. From 16 on, who may create roles does not thereby become them and grants
-- itself the membership it needs; before, it may grant any.
do $$
declare
  me constant name := current_user;
  owner name;
  spare name;
  version constant int := current_setting('server_version_num')::int;
  superuser constant boolean := (select rolsuper from pg_roles where rolname = current_user);
  creates_roles constant boolean := (select rolsuper or rolcreaterole from pg_roles where rolname = current_user);
  encoding constant name := getdatabaseencoding();
  convertible boolean := encoding = 'UTF8';
  byte int := 0;
  may_become constant text := case when version >= 160000 then 'SET' else 'MEMBER' end;
begin
  select pg_get_userbyid(nspowner) into owner from pg_namespace where nspname = 'millrace';
  if owner is null and not has_database_privilege(current_database(), 'CREATE') then
    raise exception 'role "%" may not create the schema "millrace" in database "%"', me, current_database()
      using errcode = '42501', hint = format('Run "grant create on database %I to %I" as its owner, or run '
        '"millrace migrate" as a role that may.', current_database(), me);
  end if;
  select relname into spare from pg_class where relnamespace = to_regnamespace('millrace') order by oid limit 1;
  if spare is not null then
    raise exception 'database "%" has a schema "millrace" that is not Millrace''s: it holds "%"', current_database(), spare
      using errcode = '42P06', hint = 'Rename that schema, or use another database.';
  end if;

  if not convertible and encoding not in ('SQL_ASCII', 'MULE_INTERNAL') and pg_encoding_max_length(pg_char_to_encoding(encoding)) = 1 then
    begin
      while byte < 255 loop
        byte := byte + 1;
        perform convert(set_byte('0', 0, byte), encoding, 'UTF8');
      end loop;
      convertible := true;
    exception when untranslatable_character then
      null;
    end;
  end if;
  if not convertible then
    raise exception 'database "%" is in %, where text can hold what UTF-8, in which events are told, cannot', current_database(), encoding
      using errcode = '0A000', hint = 'Use a database that is in UTF8 (createdb --encoding=UTF8 --template=template0), and move the data there.';
  end if;

  if owner is null then
    owner := 'millrace_owner';
    if creates_roles and to_regrole(owner) is null then
      begin
        create role millrace_owner nologin;
      exception when duplicate_object or unique_violation then
        null;
      end;
    end if;
    if exists (select from pg_roles where rolname = owner and (rolsuper or rolcanlogin)) then
      raise exception 'role "millrace_owner" can log in or is a superuser'
        using errcode = '42501', hint = 'Run "alter role millrace_owner nologin nosuperuser": capture runs with its rights.';
    end if;
  end if;

  if to_regrole(owner) is not null and not superuser and not pg_has_role(me, owner, may_become) then
    begin
      if version >= 160000 then
        execute format('grant %I to %I with inherit true, set true', owner, me);
      elsif creates_roles then
        execute format('grant %I to %I', owner, me);
      end if;
    exception when insufficient_privilege then
      null;
    end;
  end if;

  if to_regrole(owner) is null or not superuser and not pg_has_role(me, owner, may_become) then
    if to_regnamespace('millrace') is not null then
      raise exception 'schema "millrace" belongs to role "%", which role "%" may not become', owner, me
        using errcode = '42501', hint = format('Run "millrace migrate" as a superuser, or "grant %I to %I" first.', owner, me);
    end if;
    owner := me;
  end if;

  if to_regnamespace('millrace') is null then
    execute format('create schema millrace authorization %I', owner);
  end if;
  execute format('set local role %I', owner);
  create table millrace.migration (
    number int primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default clock_timestamp()
  );
  comment on table millrace.migration is 'Which numbered migrations this database has. Written by millrace migrate.';
end $$
