//! The shell: hears questions, reads the book, answers.

use crate::{
    config::{Config, EnrolConfig},
    metrics::Metrics,
    quiet::Quiet,
};
use push0_accounts::{Book, CalloutError, Request, admit, refuse};
use push0_bus::{Backoff, Bus, BusError, NatsConfig, Signal, now};
use push0_runtime::{BoxError, Component, Service};
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The subject on which the broker asks about clients. Only the account of the enroller hears it.
const QUESTIONS: &str = "$SYS.REQ.USER.AUTH";

/// Runs the enroller until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let connection = service.health.component("connection").quiet_reporter();
    let enroller = Enroller {
        files: service.config.enrol.clone(),
        metrics: Metrics::register()?,
        book: service.health.component("accounts"),
        quiet: Mutex::default(),
    };
    // The runtime has checked the files. A file missing later may be about to be replaced.
    enroller.book.ready();
    let nats = NatsConfig {
        without_streams: true,
        ..service.config.nats.clone()
    };
    let bus = Bus::connect_reporting(&nats, "enroller", permissions, connection).await?;
    let health = service.health.clone();
    let _known = bus.introduce(service.name, service.version, move || health.trouble());
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
    quiet: Mutex<Quiet>,
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
                Err(error) => tracing::error!(
                    %error,
                    "a replica cannot sign in: the question or enrol.issuer_seed cannot be read"
                ),
            }
        }
    }

    async fn answer(&self, question: &Signal) -> Result<String, BoxError> {
        let request = Request::read(question.bytes())?;
        let seed = tokio::fs::read_to_string(&self.files.issuer_seed).await;
        let issuer = self
            .files
            .issuer(seed)
            .inspect_err(|error| self.book.not_ready(error.to_string()))?;
        let accounts = tokio::fs::read(&self.files.accounts).await;
        let book = match self.files.book(accounts) {
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
                let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
                if quiet.is_due(request.key(), Instant::now()) {
                    tracing::warn!(%reason, key = request.key(), "a client is refused, which is logged once a minute");
                }
                refuse(request, &reason.to_string(), issuer, now())
            }
        }
    }
}
