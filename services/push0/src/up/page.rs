//! The address of the live page, which the gateway serves.

use super::plan::Process;
use super::ports;
use crate::failure::Failure;
use std::net::SocketAddr;

/// Variable with the address.
pub(crate) const VARIABLE: &str = "PUSH0_GATEWAY__LISTEN";

/// Returns the address for the page: the one in [`VARIABLE`], else the one of the last run or a free one.
pub(crate) fn address(last: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
    let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(ports::address_again(last)?);
    };
    let text = text.to_string_lossy();
    let wrong = |_| {
        Failure::usage(format!(
            "{VARIABLE} = {text:?}: expected an address such as 127.0.0.1:8480"
        ))
    };
    text.parse().map_err(wrong)
}

/// Lets the gateway serve the page at the address.
pub(crate) fn listen(processes: &mut [Process], address: SocketAddr) {
    for gateway in processes.iter_mut().filter(|process| process.name == "gateway") {
        gateway.env.insert(VARIABLE.into(), address.to_string());
    }
}
