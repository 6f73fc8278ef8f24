//! Leaders and standbys by role: the roles that a deployment needs, their facts, and who says it leads.

use super::model::{PipelineStatus, RoleStatus};
use crate::failure::Failure;
use push0_bus::{Bus, Introduced, Lead, now};
use push0_domain::Timestamp;
use push0_operate::judge;
use std::time::Duration;

/// How long after the first look an old renewal is looked at again, in case the clocks of the machines differ.
const LOOK_AGAIN: Duration = Duration::from_millis(700);

/// Reads who leads.
pub(super) async fn read(
    bus: &Bus,
    pipelines: &[PipelineStatus],
    services: &[Introduced],
) -> Result<Vec<RoleStatus>, Failure> {
    let mut roles = Vec::new();
    let needed = pipelines
        .iter()
        .map(|pipeline| (pipeline.name.as_str(), pipeline.is_ingested));
    for role in judge::roles(needed) {
        let lead = bus.lead(&role).await?;
        roles.push((role, lead));
    }
    let at = now();
    let is_old = |lead: &Lead| lead.led.is_some() && judge::is_silent(lead, at);
    if roles.iter().any(|(_, lead)| is_old(lead)) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut found = Vec::new();
    for (role, lead) in roles {
        let is_renewed = is_old(&lead) && bus.lead(&role).await?.renewed_at != lead.renewed_at;
        found.push(status(role, &lead, is_renewed, services, at));
    }
    Ok(found)
}

/// Returns the state of a role. `is_renewed` says that an old renewal was followed by another.
fn status(
    role: String,
    lead: &Lead,
    is_renewed: bool,
    services: &[Introduced],
    now: Timestamp,
) -> RoleStatus {
    let is_led = lead.led.is_some() && (is_renewed || !judge::is_silent(lead, now));
    let of = |roles: fn(&Introduced) -> &Vec<String>| -> Vec<String> {
        let those = services.iter().filter(|service| roles(service).contains(&role));
        those.map(|service| service.replica.clone()).collect()
    };
    let since = match &lead.led {
        Some(_) if is_led => lead.began_at,
        _ => lead.renewed_at,
    };
    RoleStatus {
        leaders: of(|service| &service.leading),
        standbys: of(|service| &service.standby),
        is_led,
        since,
        role,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_bus::Led;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn ago(seconds: u64) -> Timestamp {
        NOW.minus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_role_is_led_while_its_fact_is_renewed() {
        let lead = |instance: Option<&str>, seconds| Lead {
            led: instance.map(|instance| Led {
                instance: instance.into(),
                lasts: Duration::from_secs(100),
            }),
            renewed_at: Some(ago(seconds)),
            began_at: Some(ago(107)),
        };
        let service = |replica: &str, leads: bool| {
            let role = vec!["dispatcher".to_owned()];
            let (leading, standby) = if leads { (role, vec![]) } else { (vec![], role) };
            Introduced {
                replica: replica.into(),
                leading,
                standby,
                ..Introduced::default()
            }
        };
        let services = [service("a/1", true), service("b/2", false)];
        let of = |lead: &Lead, is_renewed| status("dispatcher".into(), lead, is_renewed, &services, NOW);
        let led = of(&lead(Some("x"), 1), false);
        assert_eq!((led.is_led, led.since), (true, Some(ago(107))));
        assert_eq!(
            (led.leaders, led.standbys),
            (vec!["a/1".to_owned()], vec!["b/2".to_owned()])
        );
        let silent = of(&lead(Some("x"), 60), false);
        assert_eq!((silent.is_led, silent.since), (false, Some(ago(60))));
        assert!(of(&lead(Some("x"), 60), true).is_led, "the clocks differ");
        assert!(!of(&lead(None, 1), false).is_led, "the leader resigned");
        assert_eq!(of(&Lead::default(), false).since, None);
    }
}
