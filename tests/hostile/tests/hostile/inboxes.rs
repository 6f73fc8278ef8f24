//! Inboxes are private: no user hears the answers that another gets.

use futures::future::join_all;
use push0_hostile::{CONTROL, MEMBERS, brokers, client_of};

async fn nobody_hears_the_inbox_of_another(count: usize) {
    let deployment = brokers(count).await;
    let users: Vec<&str> = CONTROL
        .into_iter()
        .chain(MEMBERS.map(|(name, ..)| name))
        .collect();
    let mut clients = Vec::new();
    for (at, user) in users.iter().enumerate() {
        clients.push((*user, client_of(&deployment, user, at).await));
    }
    let inboxes: Vec<(&str, String)> = clients
        .iter()
        .map(|(user, client)| (*user, client.inbox()))
        .collect();
    let tried = clients.iter_mut().map(async |(user, client)| {
        let mut wrong = Vec::new();
        for (owner, inbox) in &inboxes {
            let refused = client.subscribe(inbox).await;
            if refused.is_empty() != (owner == user) {
                wrong.push(format!("{user} and the inbox of {owner}: {refused:?}"));
            }
        }
        for subject in ["_INBOX.>", "_INBOX_*.>", "_INBOX_x.>", ">", "*.>"] {
            if client.subscribe(subject).await.is_empty() {
                wrong.push(format!("{user} hears {subject}"));
            }
        }
        wrong
    });
    let wrong: Vec<String> = join_all(tried).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    deployment.expect_refusals();
}

#[tokio::test]
async fn no_user_hears_the_answers_of_another() {
    nobody_hears_the_inbox_of_another(1).await;
}

#[tokio::test]
async fn no_user_hears_the_answers_of_another_on_three_brokers() {
    nobody_hears_the_inbox_of_another(3).await;
}
