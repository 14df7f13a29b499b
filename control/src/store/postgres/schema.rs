//! The tables, and how an older database comes to them.

use tokio_postgres::Client;

use super::{Address, Fault, MIGRATING, lock};
use crate::store::StoreError;

/// What brings a database from each layout to the next one. What was released is never changed:
/// more goes to the end.
const MIGRATIONS: [&str; 1] = [FIRST];

/// The last 1,000 revisions cannot be changed or removed, the audit log not at all: a fact of the
/// database, not a habit of this program. `routes`, `upstreams`, `consumers` and `policies` (limits,
/// authenticators, groups) hold the latest revision's, for people to query; nothing reads them back.
const FIRST: &str = "
    CREATE TABLE revisions (
        id bigint PRIMARY KEY,
        created timestamptz NOT NULL,
        author text NOT NULL,
        message text NOT NULL,
        spec jsonb NOT NULL,
        source text NOT NULL,
        source_name text NOT NULL,
        diff jsonb
    );
    CREATE FUNCTION sluice_keep_revisions() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            IF OLD.id <= (SELECT max(id) FROM revisions) - 1000 THEN
                RETURN OLD;
            END IF;
        END IF;
        RAISE EXCEPTION 'revisions are immutable';
    END $$;
    CREATE TRIGGER revisions_immutable BEFORE UPDATE OR DELETE ON revisions
        FOR EACH ROW EXECUTE FUNCTION sluice_keep_revisions();
    CREATE TRIGGER revisions_whole BEFORE TRUNCATE ON revisions
        FOR EACH STATEMENT EXECUTE FUNCTION sluice_keep_revisions();

    CREATE TABLE routes (
        name text PRIMARY KEY,
        workspace text NOT NULL,
        position bigint NOT NULL,
        spec jsonb NOT NULL,
        revision bigint NOT NULL
    );
    CREATE TABLE upstreams (
        name text PRIMARY KEY,
        workspace text NOT NULL,
        position bigint NOT NULL,
        spec jsonb NOT NULL,
        revision bigint NOT NULL
    );
    CREATE TABLE consumers (
        name text PRIMARY KEY,
        workspace text NOT NULL,
        position bigint NOT NULL,
        spec jsonb NOT NULL,
        revision bigint NOT NULL
    );
    CREATE TABLE policies (
        kind text NOT NULL,
        name text NOT NULL,
        workspace text NOT NULL,
        position bigint NOT NULL,
        spec jsonb NOT NULL,
        revision bigint NOT NULL,
        PRIMARY KEY (kind, name)
    );

    CREATE TABLE audit (
        seq bigint PRIMARY KEY,
        time_ms bigint NOT NULL,
        actor text NOT NULL,
        source text NOT NULL,
        action text NOT NULL,
        target text NOT NULL,
        revision bigint,
        outcome text NOT NULL,
        prev_hash text NOT NULL,
        hash text NOT NULL
    );
    CREATE FUNCTION sluice_keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit log is append-only';
    END $$;
    CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit
        FOR EACH ROW EXECUTE FUNCTION sluice_keep_audit();
    CREATE TRIGGER audit_whole BEFORE TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION sluice_keep_audit();
    CREATE TABLE audit_head (
        one int PRIMARY KEY CHECK (one = 1),
        seq bigint NOT NULL
    );
    INSERT INTO audit_head VALUES (1, 0);

    CREATE TABLE idempotency (
        key text NOT NULL,
        actor text NOT NULL,
        created timestamptz NOT NULL DEFAULT clock_timestamp(),
        fingerprint text NOT NULL,
        status int NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (key, actor)
    );
    CREATE INDEX idempotency_by_age ON idempotency (created);
    CREATE TABLE nodes (
        name text PRIMARY KEY,
        seen timestamptz NOT NULL,
        report jsonb NOT NULL
    );
    CREATE TABLE rollouts (
        revision bigint PRIMARY KEY,
        version bigint NOT NULL,
        state text NOT NULL,
        changed timestamptz NOT NULL,
        rollout jsonb NOT NULL
    );
    CREATE TABLE key_uses (
        digest bytea PRIMARY KEY,
        used_s bigint NOT NULL
    );
";

/// Brings the database to this version's layout; nodes that come at the same time wait for the first.
pub async fn migrate(client: &mut Client, address: &Address) -> Result<(), Fault> {
    let known = MIGRATIONS.len() as i64;
    let change = client.transaction().await?;
    lock(&change, MIGRATING).await?;
    let exists = "SELECT to_regclass('schema_migrations') IS NOT NULL";
    if !change.query_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        let table = "CREATE TABLE schema_migrations (
            layout bigint PRIMARY KEY, applied timestamptz NOT NULL DEFAULT clock_timestamp())";
        change.batch_execute(table).await?;
    }
    let query = "SELECT coalesce(max(layout), 0)::bigint FROM schema_migrations";
    let found: i64 = change.query_one(query, &[]).await?.try_get(0)?;
    if found > known {
        return Err(StoreError::Layout { path: address.to_string(), found, known }.into());
    }
    for (layout, migration) in (1_i64..).zip(MIGRATIONS).skip(found.max(0) as usize) {
        change.batch_execute(migration).await?;
        change.execute("INSERT INTO schema_migrations (layout) VALUES ($1)", &[&layout]).await?;
    }
    change.commit().await?;
    Ok(())
}
