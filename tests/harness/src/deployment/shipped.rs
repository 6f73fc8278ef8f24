//! Additions of a shipped deployment to a quick one: users, and limits checked by every test.

use super::{Deployment, PATIENCE};
use crate::{Process, ProcessBuilder, accounts::User, cluster::Broker, wait_for};
use push0_domain::message::Role;
use std::net::SocketAddr;

/// Programs of the control services, of which a deployment runs two each.
pub(super) const CONTROL: [&str; 4] = ["ingester", "dispatcher", "collector", "watchdog"];
/// Programs that ship with the memory of a control service, 64 MiB, and are in a deployment only if the test starts them.
const AS_LARGE: [&str; 2] = ["gateway", "enroller"];
/// The most resident memory that such a program may have, in megabytes (2^20 bytes). Its container gets
/// 64, which also hold the program's pages and its sockets.
pub const MEMORY_MAX_MB: f64 = 40.0;

/// Returns the variables of every service in the shipped deployment.
pub(super) fn environment(traces: SocketAddr) -> Vec<(String, String)> {
    let of = |name: &str, value: String| (name.to_owned(), value);
    vec![
        of("PUSH0_TELEMETRY__FORMAT", "json".into()),
        of("PUSH0_TELEMETRY__OTLP_ENDPOINT", format!("http://{traces}")),
    ]
}

/// Returns the variables of single programs in the shipped deployment: program, name, value.
pub(super) fn settings() -> Vec<(String, String, String)> {
    let submit = ("ingester", "PUSH0_SUBMIT__LISTEN", "127.0.0.1:0");
    [submit]
        .map(|(program, name, value)| (program.into(), name.into(), value.into()))
        .into()
}

/// Returns the user of an adapter without credentials of its own, or `None` for other programs and for adapters that enrol.
pub(super) fn user_of(service: &ProcessBuilder) -> Option<User> {
    let adapter = service.program_name().strip_prefix("prover-")?;
    if service.variable("PUSH0_PROVER__ENROL").is_some() {
        return None;
    }
    let variable = |name, default: &str| service.variable(name).unwrap_or(default).to_owned();
    Some(User {
        name: variable("PUSH0_PROVER__ID", service.name()),
        role: if service.has_arg("--verify") {
            Role::Verifier
        } else {
            Role::Prover
        },
        zkvm: variable("PUSH0_PROVER__ZKVM", adapter),
        fleet: false,
    })
}

impl<B: Broker> Deployment<B> {
    /// Adds an adapter that the brokers do not know to their users, if the deployment has users.
    pub(super) fn admit(&mut self, service: &ProcessBuilder) {
        let user = user_of(service);
        let added = self
            .accounts
            .as_ref()
            .zip(user)
            .map(|(accounts, user)| accounts.add(&user));
        if added == Some(true) {
            self.nats
                .servers_mut()
                .iter_mut()
                .for_each(crate::NatsServer::reload);
        }
    }

    /// Gives a service its own broker user, if the deployment has users. Control services use the user of
    /// their name, adapters the user of their prover id, and the operator's command the user `operator`.
    pub(super) fn signed(&self, service: ProcessBuilder) -> ProcessBuilder {
        let Some(accounts) = &self.accounts else {
            return service;
        };
        if let Some(user) = user_of(&service) {
            let seed = accounts.seed(&user.name);
            return service
                .env_default("PUSH0_PROVER__ID", &user.name)
                .env_default("PUSH0_NATS__NKEY_SEED", &seed.display().to_string());
        }
        if service.variable("PUSH0_PROVER__ENROL").is_some() {
            // The shipped environment names a seed for all services, and a replica that enrols has no such file.
            return service.env_default("PUSH0_NATS__NKEY_SEED", "/etc/push0/seed");
        }
        let program = service.program_name().to_owned();
        if program == "enroller" {
            return accounts
                .of_enroller()
                .iter()
                .fold(service, |service, (name, path)| {
                    service.env_default(name, &path.display().to_string())
                });
        }
        let user = if program == "push0" { "operator" } else { &program };
        let seed = accounts.seed(user);
        service.env_default("PUSH0_NATS__NKEY_SEED", &seed.display().to_string())
    }

    /// Returns the operator's command, `push0`, set up for this deployment.
    pub fn command(&self) -> ProcessBuilder {
        let command = Process::program("push0").env("PUSH0_NATS__URL", self.nats.urls());
        self.signed(command)
    }

    /// Returns all processes of a program.
    pub fn instances<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a Process> {
        self.services
            .iter()
            .filter(move |service| service.program_name() == program)
    }

    /// Returns the label of the leading process of this program, as soon as a process leads. A collector may
    /// lead some pipelines and not others, so the first collector that leads any pipeline is returned.
    ///
    /// # Panics
    /// No process leads within 30 s.
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

    /// Returns the label of the process whose death hurts most: the leader of a control service. Any other
    /// name is a label itself and is returned unchanged.
    pub async fn victim(&self, name: &str) -> String {
        if CONTROL.contains(&name) {
            self.leader(name).await
        } else {
            name.to_owned()
        }
    }

    /// Returns the label of another process of the same program.
    ///
    /// # Panics
    /// The program has no other process.
    pub fn other_than(&self, label: &str) -> String {
        let program = self.service(label).program_name();
        let other = self.instances(program).find(|service| service.label() != label);
        other
            .unwrap_or_else(|| panic!("{label} is alone"))
            .label()
            .to_owned()
    }

    /// Returns the peak resident memory of each service, in megabytes (2^20 bytes).
    pub fn peaks(&self) -> Vec<(&str, f64)> {
        self.services
            .iter()
            .map(|service| (service.label(), service.peak_rss_mb()))
            .collect()
    }

    /// Checks that no control service, gateway or enroller ever exceeded [`MEMORY_MAX_MB`]. Every deployment as shipped
    /// runs this check when it ends.
    ///
    /// # Panics
    /// One of them exceeded the limit.
    pub fn assert_within_memory(&self) {
        let limited = self.services.iter().filter(|s| {
            CONTROL
                .iter()
                .chain(&AS_LARGE)
                .any(|name| *name == s.program_name())
        });
        let above = limited.filter(|service| service.peak_rss_mb() > MEMORY_MAX_MB);
        let above: Vec<String> = above
            .map(|s| format!("{} {:.1} MB", s.label(), s.peak_rss_mb()))
            .collect();
        assert!(
            above.is_empty(),
            "more than {MEMORY_MAX_MB} MB of memory: {}",
            above.join(", ")
        );
    }

    /// Checks that the broker refused no operation of any client. Every deployment as shipped runs this check
    /// when it ends.
    ///
    /// # Panics
    /// The broker refused an operation.
    pub fn assert_nothing_refused(&self) {
        let refused = self.refusals();
        assert!(
            refused.is_empty(),
            "the broker refused what a client needs:\n{}",
            refused.join("\n")
        );
    }

    /// Returns the refusals in the brokers' logs in ascending order without duplicates, with users' names in
    /// place of their keys.
    fn refusals(&self) -> Vec<String> {
        let lines = self.nats.servers().iter().flat_map(crate::NatsServer::refusals);
        let named = lines.map(|line| {
            self.accounts
                .as_ref()
                .map_or(line.clone(), |a| a.with_names(&line))
        });
        let mut refused: Vec<String> = named.collect();
        refused.sort();
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
        if !self.refusals_expected.load(std::sync::atomic::Ordering::Relaxed) {
            self.assert_nothing_refused();
        }
        self.assert_within_memory();
    }
}
