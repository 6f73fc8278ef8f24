//! The shell: hears questions, reads the book, answers.

use crate::{
    config::{Config, EnrolConfig},
    metrics::Metrics,
};
use push0_accounts::{Book, CalloutError, Request, admit, refuse};
use push0_bus::{Backoff, Bus, BusError, NatsConfig, Signal, now};
use push0_runtime::{BoxError, Component, Service};
use std::{path::Path, time::Instant};

/// The subject on which the broker asks about clients. Only the account of the enroller hears it.
const QUESTIONS: &str = "$SYS.REQ.USER.AUTH";

/// A file that the answers need and that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
struct Unreadable {
    path: String,
    reason: String,
}

impl Unreadable {
    fn new(path: &Path, reason: impl ToString) -> Self {
        Self {
            path: path.display().to_string(),
            reason: reason.to_string(),
        }
    }
}

/// Runs the enroller until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let connection = service.health.component("connection").quiet_reporter();
    let enroller = Enroller {
        files: service.config.enrol.clone(),
        metrics: Metrics::register()?,
        book: service.health.component("accounts"),
    };
    // A file that is missing at the start is a mistake worth an end; later it may be about to be replaced.
    read_book(&enroller.files.accounts).await?;
    read_issuer(&enroller.files.issuer_seed).await?;
    enroller.book.ready();
    let nats = NatsConfig {
        without_streams: true,
        ..service.config.nats.clone()
    };
    let bus = Bus::connect_reporting(&nats, "enroller", permissions, connection).await?;
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let error = tokio::select! {
            () = service.shutdown.requested() => break,
            ended = bus.permitted(enroller.serve(&bus, &broker)) => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        broker.not_ready(error.to_string());
        tokio::select! {
            () = service.shutdown.requested() => break,
            () = backoff.pause_after(began) => {}
        }
    }
    bus.flush().await;
    Ok(())
}

struct Enroller {
    files: EnrolConfig,
    metrics: Metrics,
    book: Component,
}

impl Enroller {
    /// Answers questions while the connection lasts.
    async fn serve(&self, bus: &Bus, broker: &Component) -> Result<(), BusError> {
        bus.connected().await;
        let mut questions = bus.listen([QUESTIONS.to_owned()]).await?;
        bus.flush().await;
        broker.ready();
        loop {
            let question = tokio::select! {
                question = questions.next() => question?,
                () = bus.interrupted() => return Err(BusError::Interrupted),
            };
            match self.answer(&question).await {
                Ok(answer) => bus.answer(&question, answer).await?,
                Err(error) => tracing::error!(%error, "a client cannot sign in"),
            }
        }
    }

    async fn answer(&self, question: &Signal) -> Result<String, BoxError> {
        let request = Request::read(question.bytes())?;
        let issuer = read_issuer(&self.files.issuer_seed).await?;
        let book = match read_book(&self.files.accounts).await {
            Ok(book) => book,
            Err(error) => {
                self.book.not_ready(error.to_string());
                tracing::error!(%error, "no replica can sign in: write the file again with `push0 auth`");
                return Ok(refuse(
                    &request,
                    "the enroller cannot read its accounts",
                    &issuer,
                    now(),
                )?);
            }
        };
        self.book.ready();
        Ok(self.decided(&book, &request, &issuer)?)
    }

    fn decided(&self, book: &Book, request: &Request, issuer: &str) -> Result<String, CalloutError> {
        match request.decide(book) {
            Ok(admitted) => {
                self.metrics.answers.with_label_values(&["admitted"]).inc();
                tracing::info!(prover.id = %admitted.name, key = request.key(), "a replica signs in");
                admit(request, &admitted, issuer, now())
            }
            Err(reason) => {
                self.metrics.answers.with_label_values(&["refused"]).inc();
                tracing::warn!(%reason, key = request.key(), "a client is refused");
                refuse(request, &reason.to_string(), issuer, now())
            }
        }
    }
}

async fn read_book(path: &Path) -> Result<Book, Unreadable> {
    let text = tokio::fs::read(path)
        .await
        .map_err(|e| Unreadable::new(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Unreadable::new(path, e))
}

async fn read_issuer(path: &Path) -> Result<String, Unreadable> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|e| Unreadable::new(path, e))
}
