-- A small shop, in whatever schema the search_path names. May run again at any time.
create table if not exists customers (
  id bigint generated always as identity primary key,
  name text not null,
  email text not null,
  region text not null check (region in ('eu', 'us', 'apac')),
  spent numeric(12, 2) not null default 0,
  created_at timestamptz not null default now()
);

create table if not exists orders (
  id bigint generated always as identity primary key,
  customer_id bigint not null references customers,
  region text not null,
  status text not null default 'placed' check (status in ('placed', 'paid', 'shipped', 'delivered', 'cancelled')),
  items jsonb not null,
  total numeric(10, 2) not null,
  placed_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index if not exists orders_status on orders (status, id);
