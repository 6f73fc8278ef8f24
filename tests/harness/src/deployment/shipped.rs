//! What a deployment as shipped adds to a quick one: users, and limits that every test checks.

use super::{Deployment, PATIENCE};
use crate::{Process, ProcessBuilder, accounts::Role, cluster::Broker, wait_for};
use std::net::SocketAddr;

/// The services of which there are two each, by their programs.
pub(super) const CONTROL: [&str; 4] = ["ingester", "dispatcher", "collector", "watchdog"];
/// The most resident memory that a control service may have, in megabytes (2^20 bytes): its container gets
/// 64, in which the program's pages and its sockets count as well.
pub const MEMORY_MAX_MB: f64 = 40.0;

/// What every service is told where it ships.
pub(super) fn environment(traces: SocketAddr) -> Vec<(String, String)> {
    let of = |name: &str, value: String| (name.to_owned(), value);
    vec![
        of("PUSH0_TELEMETRY__FORMAT", "json".into()),
        of("PUSH0_TELEMETRY__OTLP_ENDPOINT", format!("http://{traces}")),
    ]
}

/// What the processes of one program are told where they ship.
pub(super) fn settings() -> Vec<(String, String, String)> {
    let submit = ("ingester", "PUSH0_SUBMIT__LISTEN", "127.0.0.1:0");
    [submit]
        .map(|(program, name, value)| (program.into(), name.into(), value.into()))
        .into()
}

impl<B: Broker> Deployment<B> {
    /// The service as its own user, if there are users: control services as those of their names, adapters
    /// as those of their provers, the operator's command as the operator.
    pub(super) fn signed(&self, service: ProcessBuilder) -> ProcessBuilder {
        let Some(accounts) = &self.accounts else {
            return service;
        };
        let program = service.program_name().to_owned();
        let Some(adapter) = program.strip_prefix("prover-") else {
            let user = if program == "push0" { "operator" } else { &program };
            let seed = accounts.seed(user);
            return service.env_default("PUSH0_NATS__NKEY_SEED", &seed.display().to_string());
        };
        let label = service.name().to_owned();
        let service = service.env_default("PUSH0_PROVER__ID", &label);
        let id = service.variable("PUSH0_PROVER__ID").unwrap_or(&label).to_owned();
        let zkvm = service
            .variable("PUSH0_PROVER__ZKVM")
            .unwrap_or(adapter)
            .to_owned();
        let role = if service.has_arg("--verify") {
            Role::Verifier
        } else {
            Role::Prover
        };
        if accounts.add(&id, role, &zkvm) {
            self.nats.servers().iter().for_each(crate::NatsServer::reload);
        }
        let seed = accounts.seed(&id);
        service.env_default("PUSH0_NATS__NKEY_SEED", &seed.display().to_string())
    }

    /// The operator's command on this deployment.
    pub fn command(&self) -> ProcessBuilder {
        let command = Process::program("push0").env("PUSH0_NATS__URL", self.nats.urls());
        self.signed(command)
    }

    /// All processes of a program.
    pub fn instances<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a Process> {
        self.services
            .iter()
            .filter(move |service| service.program_name() == program)
    }

    /// The label of the process of this program that leads, as soon as there is one. A collector may lead
    /// several pipelines and not others: then it is the first that leads any.
    ///
    /// # Panics
    /// None does within 30 s.
    pub async fn leader(&self, program: &str) -> String {
        let metric = format!("push0_{program}_leading");
        let what = format!("a {program} that leads");
        wait_for(&what, PATIENCE, async || {
            for instance in self.instances(program) {
                if instance.says_one(&metric).await {
                    return Some(instance.label().to_owned());
                }
            }
            None
        })
        .await
    }

    /// Whose end hurts most: the label of the process that leads, of a control service; any other name is the
    /// label itself.
    pub async fn victim(&self, name: &str) -> String {
        if CONTROL.contains(&name) {
            self.leader(name).await
        } else {
            name.to_owned()
        }
    }

    /// The label of a process of this program other than this one.
    ///
    /// # Panics
    /// There is none.
    pub fn other_than(&self, label: &str) -> String {
        let program = self.service(label).program_name();
        let other = self.instances(program).find(|service| service.label() != label);
        other
            .unwrap_or_else(|| panic!("{label} is alone"))
            .label()
            .to_owned()
    }

    /// The most resident memory that each service ever had, in megabytes (2^20 bytes).
    pub fn peaks(&self) -> Vec<(&str, f64)> {
        self.services
            .iter()
            .map(|service| (service.label(), service.peak_rss_mb()))
            .collect()
    }

    /// Checks that no control service ever had more than [`MEMORY_MAX_MB`]. Every deployment as shipped
    /// checks this when it ends.
    ///
    /// # Panics
    /// One had.
    pub fn assert_within_memory(&self) {
        let control = self
            .services
            .iter()
            .filter(|s| CONTROL.contains(&s.program_name()));
        let above = control.filter(|service| service.peak_rss_mb() > MEMORY_MAX_MB);
        let above: Vec<String> = above
            .map(|s| format!("{} {:.1} MB", s.label(), s.peak_rss_mb()))
            .collect();
        assert!(
            above.is_empty(),
            "more than {MEMORY_MAX_MB} MB of memory: {}",
            above.join(", ")
        );
    }

    /// Checks that the broker refused nothing that a client asked for. Every deployment as shipped checks
    /// this when it ends.
    ///
    /// # Panics
    /// It refused something.
    pub fn assert_nothing_refused(&self) {
        let refused = self.refusals();
        assert!(
            refused.is_empty(),
            "the broker refused what a client needs:\n{}",
            refused.join("\n")
        );
    }

    /// What the brokers refused, each line of their logs once, with the user's name for its key.
    fn refusals(&self) -> Vec<String> {
        let lines = self.nats.servers().iter().flat_map(crate::NatsServer::refusals);
        let named = lines.map(|line| {
            self.accounts
                .as_ref()
                .map_or(line.clone(), |a| a.with_names(&line))
        });
        let mut refused: Vec<String> = named.collect();
        refused.dedup();
        refused
    }
}

impl<B: Broker> Drop for Deployment<B> {
    fn drop(&mut self) {
        if self.accounts.is_none() {
            return;
        }
        let peaks: Vec<String> = self
            .peaks()
            .iter()
            .map(|(label, mb)| format!("{label} {mb:.1}"))
            .collect();
        eprintln!("peak of resident memory in MB: {}", peaks.join(", "));
        if std::thread::panicking() {
            self.refusals()
                .iter()
                .for_each(|line| eprintln!("refused: {line}"));
            return;
        }
        self.assert_nothing_refused();
        self.assert_within_memory();
    }
}
