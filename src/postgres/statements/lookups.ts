import { sql } from "kysely";
import { catalog } from "../catalog.ts";

/**
 * Whether this database has the list of its migrations, and whether the present role may read it. By oid: a name in a
 * schema that one may not use is refused before anything is answered.
 */
export const migrationsReadable = catalog
  .selectFrom("pg_catalog.pg_class as c")
  .innerJoin("pg_catalog.pg_namespace as n", "n.oid", "c.relnamespace")
  .where("n.nspname", "=", "millrace")
  .where("c.relname", "=", "migration")
  .select([
    sql<boolean>`pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT')`.as(
      "readable",
    ),
    sql<string>`current_user::text`.as("me"),
  ]);

/** Which migrations this database has, in their order. */
export const appliedMigrations = catalog
  .selectFrom("millrace.migration")
  .select(["number", "name", "sha256"])
  .orderBy("number");

/** Who owns the schema: captures run with that role's rights. */
export const schemaOwner = catalog
  .selectFrom("pg_catalog.pg_namespace as n")
  .innerJoin("pg_catalog.pg_roles as r", "r.oid", "n.nspowner")
  .where("n.nspname", "=", "millrace")
  .select([
    "r.rolname as owner",
    "r.rolsuper as superuser",
    "r.rolcanlogin as login",
    sql<string>`current_user::text`.as("me"),
  ]);

/** How far the last tick lies in the future of the database's own clock, in milliseconds. */
export const lastTickAhead = catalog
  .selectFrom("millrace.tick as t")
  .orderBy("t.tick", "desc")
  .limit(1)
  .select(sql<number>`(extract(epoch from t.time - clock_timestamp()) * 1000)::float8`.as("aheadMs"));
