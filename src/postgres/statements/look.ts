/**
 * Settings that say what names and literals in a statement mean, and how values are written. At the head of every
 * transaction whose statements call functions or operators by their bare names.
 *
 * Roles and databases may preset them; and whoever may create functions in a schema of the search path can plant one with
 * the same name and better matching arguments, which would then run with the rights of whoever runs Millrace. Statements
 * outside of such a transaction name every function that has no exact match as pg_catalog's.
 *
 * SET LOCAL, and not options of the connection: a transaction-mode pooler refuses those, or hands them on to others.
 */
export const pinned = `
  set local search_path = pg_catalog, pg_temp;
  set local standard_conforming_strings = on;
  set local datestyle = 'ISO, YMD';
  set local extra_float_digits = 1;
  set local quote_all_identifiers = off`;

/** A look, not a load: it gives up rather than weigh on a database that is in trouble, and takes no lock on tables. */
export const beginLook = `
  begin isolation level read committed read only;
  set local lock_timeout = '500ms';
  set local statement_timeout = '5s';
  set local idle_in_transaction_session_timeout = '10s';
  ${pinned}`;
