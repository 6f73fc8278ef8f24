//! The broker's configuration as shipped: `deploy/nats/nats.conf`, or `cluster.conf` for each of three.
//!
//! Settings that tie the files to a container are replaced: addresses, names, directories, the size of the
//! store. TLS is left out, because its certificates hold the names of pods.

use std::path::Path;

/// Name, port, directory and peers of a test's server.
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) port: u16,
    pub(crate) folder: &'a Path,
    pub(crate) store_limit: u64,
    /// The port for peers and the URLs of all servers; `None` for a single server.
    pub(crate) routes: Option<(u16, &'a [String])>,
}

/// Returns the text of the shipped configuration, adapted to a test's server.
pub(crate) fn configuration(place: &Place<'_>) -> String {
    let file = if place.routes.is_some() {
        "cluster.conf"
    } else {
        "nats.conf"
    };
    let text = without_tls(&shipped_file(file));
    let folder = place.folder.display();
    let mut replaced = vec![
        ("server_name:", format!("server_name: {}", place.name)),
        (
            "listen: \"0.0.0.0:4222\"",
            format!("listen: \"127.0.0.1:{}\"", place.port),
        ),
        (
            "http:",
            format!("http: \"127.0.0.1:-1\"\nports_file_dir: \"{folder}\""),
        ),
        ("store_dir:", format!("  store_dir: \"{folder}/store\"")),
        (
            "max_file_store:",
            format!("  max_file_store: {}", place.store_limit),
        ),
    ];
    if let Some((port, urls)) = place.routes {
        replaced.push((
            "listen: \"0.0.0.0:6222\"",
            format!("  listen: \"127.0.0.1:{port}\""),
        ));
        replaced.push(("routes: [", format!("  routes: [{}]", urls.join(", "))));
    }
    let mut lines: Vec<String> = Vec::new();
    let mut in_routes = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if in_routes {
            in_routes = trimmed != "]";
            continue;
        }
        // Advertised host names are for other machines; here all processes run on this machine.
        if trimmed.starts_with("advertise:") || trimmed.starts_with("client_advertise:") {
            continue;
        }
        let found = replaced
            .iter()
            .position(|(beginning, _)| trimmed.starts_with(beginning));
        match found {
            Some(at) => {
                let (beginning, new) = replaced.swap_remove(at);
                in_routes = beginning.starts_with("routes") && !trimmed.ends_with(']');
                lines.push(new);
            }
            None => lines.push(line.to_owned()),
        }
    }
    assert!(
        replaced.is_empty(),
        "deploy/nats/{file} lacks what is replaced for a test: {replaced:?}"
    );
    lines.join("\n") + "\n"
}

/// Returns the text of a file of `deploy/nats`.
fn shipped_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/nats")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the text without its `tls` blocks.
fn without_tls(text: &str) -> String {
    let mut kept = String::new();
    let mut skipped: Option<&str> = None;
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match skipped {
            Some(outer) => {
                if indent == outer && line.trim() == "}" {
                    skipped = None;
                }
            }
            None if line.trim() == "tls {" => skipped = Some(indent),
            None => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_configuration_keeps_its_limits_and_loses_its_addresses() {
        let urls = ["\"nats://127.0.0.1:7000\"".to_owned()];
        for routes in [None, Some((7000, &urls[..]))] {
            let place = Place {
                name: "n1",
                port: 5000,
                folder: Path::new("/somewhere"),
                store_limit: 77,
                routes,
            };
            let text = configuration(&place);
            for said in [
                "max_payload: 2MB",
                "listen: \"127.0.0.1:5000\"",
                "max_file_store: 77",
                "server_name: n1",
                "include \"auth/nats-auth.conf\"",
            ] {
                assert!(text.contains(said), "no {said}: {text}");
            }
            let settings = text.lines().filter(|line| !line.trim().starts_with('#'));
            for line in settings {
                for gone in ["0.0.0.0", "/data", "tls", "/etc/nats", "nats-peers"] {
                    assert!(!line.contains(gone), "{line}");
                }
            }
        }
    }
}
