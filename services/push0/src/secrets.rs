//! Hides secrets in what is printed: keys of RPC providers, and passwords in URLs.

use clap::Args;
use push0_domain::pipeline::{Pipeline, Source};

/// Stands for what is hidden.
const HIDDEN: &str = "***";

/// Whether secrets are printed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Secrets {
    /// With --json, print the URLs of nodes with their passwords and keys.
    #[arg(long)]
    secrets: bool,
}

impl Secrets {
    /// Returns the pipeline as it is to be printed.
    pub(crate) fn of(self, pipeline: &Pipeline) -> Pipeline {
        if self.secrets {
            pipeline.clone()
        } else {
            hide(pipeline)
        }
    }
}

/// Returns the pipeline as it may be printed, with the secrets of its source hidden.
pub(crate) fn hide(pipeline: &Pipeline) -> Pipeline {
    let mut shown = pipeline.clone();
    if let Source::Ethereum(node) = &mut shown.source {
        for url in &mut node.rpc_urls {
            let host = host(url);
            if url.trim_end_matches('/') != host {
                *url = format!("{host}/{HIDDEN}");
            }
        }
    }
    shown
}

/// Strips user, path and query from a URL: providers put keys there.
pub(crate) fn host(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// Hides user and password in each of several URLs separated by commas.
pub(crate) fn without_userinfo(urls: &str) -> String {
    let hide = |url: &str| match url.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => url.to_owned(),
    };
    urls.split(',').map(hide).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rpc_url: &str) -> String {
        let text = format!(
            "name = \"p\"\n[source]\nkind = \"ethereum\"\nrpc_url = \"{rpc_url}\"\n[[proof]]\ntype = \"t\"\n\
             zkvm = \"vm\"\n[[proof.stage]]\nname = \"s\"\nkind = \"map\"\ntimeout = \"1s\"\n"
        );
        let pipeline = Pipeline::from_toml("p.toml", &text).unwrap();
        serde_json::to_value(hide(&pipeline)).unwrap()["source"]["ethereum"]["rpc_urls"][0]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn the_keys_of_a_provider_are_not_printed() {
        for url in [
            "https://me:secret@node.example/v3/secret?key=secret",
            "https://node.example/secret",
            "https://node.example?key=secret",
        ] {
            assert_eq!(shown(url), "https://node.example/***", "{url}");
        }
        assert_eq!(shown("http://127.0.0.1:8545"), "http://127.0.0.1:8545");
    }

    #[test]
    fn passwords_of_every_broker_are_hidden() {
        assert_eq!(
            without_userinfo("nats://a:b@one:4222,nats://two:4222"),
            "***@one:4222,nats://two:4222"
        );
    }
}
