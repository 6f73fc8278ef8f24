//! A PostgreSQL table as a queue. A worker claims as many rows as it has free slots, in the order of blocks,
//! with `FOR UPDATE SKIP LOCKED` and under a lease. A row whose lease has ended can be claimed again.

use super::worker::{INPUT, LEASE, PATIENCE, Worker};
use crate::stand::{Arrivals, Done};
use anyhow::anyhow;
use futures::{FutureExt, StreamExt, future::poll_fn, stream::FuturesUnordered};
use push0_bus::now;
use push0_harness::Postgres;
use std::{ops::Range, sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

const SCHEMA: &str = "
    CREATE TABLE jobs (
        block bigint PRIMARY KEY, input bytea NOT NULL, state smallint NOT NULL DEFAULT 0,
        stored_at timestamptz NOT NULL DEFAULT clock_timestamp(), lease_until timestamptz,
        attempts int NOT NULL DEFAULT 0, worker text, began_us bigint, busy_us bigint, done_at timestamptz);
    CREATE INDEX undone ON jobs (block) WHERE state < 2;";
const TELL: &str = "
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NOTIFY jobs; RETURN NULL; END $$;
    CREATE TRIGGER tell AFTER INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION tell();";
const CLAIM: &str = "
    UPDATE jobs SET state = 1, worker = $1, attempts = attempts + 1,
        lease_until = clock_timestamp() + make_interval(secs => $3)
    WHERE block IN (
        SELECT block FROM jobs WHERE state < 2 AND (state = 0 OR lease_until < clock_timestamp())
        ORDER BY block LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING block";
const FINISH: &str = "
    UPDATE jobs SET state = 2, began_us = $2, busy_us = $3, done_at = clock_timestamp() WHERE block = $1";
const DONE: &str = "
    SELECT block, attempts, began_us, busy_us,
        (extract(epoch FROM stored_at) * 1000000)::bigint, (extract(epoch FROM done_at) * 1000000)::bigint
    FROM jobs WHERE block >= $1 AND block < $2 AND state = 2";

const IN_FLIGHT_MAX: usize = 1024;
/// Poll interval for a table without notifications.
const POLL: Duration = Duration::from_millis(100);
/// Poll interval for a table with notifications, because the end of a lease sends none.
const FALLBACK: Duration = Duration::from_secs(1);

pub(super) struct Table {
    client: Client,
    // The connection's driver task ends with this value.
    _connection: JoinSet<()>,
    server: Postgres,
}

impl Table {
    pub(super) async fn start(tell: bool) -> anyhow::Result<Self> {
        let server = Postgres::start().await.map_err(|missing| anyhow!(missing))?;
        let (client, connection) = connect(&server.url(), Arc::default()).await?;
        client.batch_execute(SCHEMA).await?;
        if tell {
            client.batch_execute(TELL).await?;
        }
        Ok(Self {
            client,
            _connection: connection,
            server,
        })
    }

    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    pub(super) async fn publish(&self, numbers: &[u64], arrivals: Arrivals) -> anyhow::Result<()> {
        let insert = self
            .client
            .prepare("INSERT INTO jobs (block, input) VALUES ($1, $2)")
            .await?;
        let (insert, input) = (&insert, vec![0x5a_u8; INPUT]);
        let start = Instant::now();
        let mut flying = FuturesUnordered::new();
        for (number, at) in numbers.iter().zip(arrivals.schedule(numbers.len() as u64)) {
            let due = tokio::time::sleep_until(start + at);
            let mut due = std::pin::pin!(due);
            // A statement is sent at its first poll, and its answer is read at later polls.
            loop {
                let room = flying.len() < IN_FLIGHT_MAX;
                tokio::select! {
                    biased;
                    Some(stored) = flying.next() => { stored?; }
                    () = &mut due, if room => break,
                }
            }
            let (block, input) = (i64::try_from(*number)?, &input);
            flying.push(async move { self.client.execute(insert, &[&block, input]).await });
            if let Some(Some(stored)) = flying.next().now_or_never() {
                stored?;
            }
        }
        while let Some(stored) = flying.next().await {
            stored?;
        }
        Ok(())
    }

    pub(super) async fn done(&self, numbers: Range<u64>) -> anyhow::Result<Vec<Done>> {
        let (first, end) = (i64::try_from(numbers.start)?, i64::try_from(numbers.end)?);
        let limit = Instant::now() + PATIENCE;
        loop {
            let count = "SELECT count(*) FROM jobs WHERE block >= $1 AND block < $2 AND state = 2";
            let there: i64 = self.client.query_one(count, &[&first, &end]).await?.get(0);
            if there >= end - first {
                break;
            }
            anyhow::ensure!(
                Instant::now() < limit,
                "{there} of {} blocks are done",
                end - first
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rows = self.client.query(DONE, &[&first, &end]).await?;
        let number = |row: &tokio_postgres::Row, at: usize| u64::try_from(row.get::<_, i64>(at));
        let each = rows.iter().map(|row| {
            Ok(Done {
                number: number(row, 0)?,
                attempt: u32::try_from(row.get::<_, i32>(1))?,
                began_us: number(row, 2)?,
                busy_us: number(row, 3)?,
                stored_us: number(row, 4)?,
                released_us: number(row, 4)?,
                done_us: number(row, 5)?,
            })
        });
        each.collect()
    }
}

/// Opens a connection, with a task that drives the connection and forwards notifications.
async fn connect(url: &str, told: Arc<Notify>) -> anyhow::Result<(Client, JoinSet<()>)> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(_) = message {
                told.notify_one();
            }
        }
    });
    Ok((client, driver))
}

pub(super) async fn work(url: &str, worker: Worker, listen: bool) -> anyhow::Result<()> {
    let told = Arc::new(Notify::new());
    let (client, _driver) = connect(url, told.clone()).await?;
    let client = Arc::new(client);
    if listen {
        client.batch_execute("LISTEN jobs").await?;
    }
    let (claim, finish) = (client.prepare(CLAIM).await?, client.prepare(FINISH).await?);
    let (pause, lease) = (if listen { FALLBACK } else { POLL }, LEASE.as_secs_f64());
    let mut running = JoinSet::new();
    loop {
        let free = i64::from(worker.slots) - i64::try_from(running.len())?;
        let mut claimed = Vec::new();
        if free > 0 {
            claimed = client.query(&claim, &[&worker.id, &free, &lease]).await?;
        }
        for row in &claimed {
            running.spawn(attempt(client.clone(), finish.clone(), row.get(0), worker.time));
        }
        if claimed.is_empty() {
            tokio::select! {
                Some(ended) = running.join_next() => ended??,
                () = told.notified(), if free > 0 => {}
                () = tokio::time::sleep(pause), if free > 0 => {}
            }
        }
    }
}

async fn attempt(client: Arc<Client>, finish: Statement, block: i64, time: Duration) -> anyhow::Result<()> {
    let (began, timer) = (i64::try_from(now().0)?, Instant::now());
    push0_prover_mock::sleep(time).await;
    let busy = i64::try_from(timer.elapsed().as_micros())?;
    client.execute(&finish, &[&block, &began, &busy]).await?;
    Ok(())
}
