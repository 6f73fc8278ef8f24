use std::future::pending;

use super::*;
use crate::exit;

const LONG: Duration = Duration::from_secs(60);

async fn until_stopped(shutdown: Shutdown) -> Result<(), BoxError> {
    shutdown.requested().await;
    Ok(())
}

#[tokio::test]
async fn the_first_error_is_told_with_its_task_and_stops_the_others() {
    let (group, shutdown) = (TaskGroup::new(), Shutdown::new());
    group.spawn("steady", until_stopped(shutdown.clone()));
    group.spawn("broken", async { Err::<(), _>("no more input") });
    let error = group
        .run_until(&shutdown, LONG)
        .await
        .expect_err("one task fails");
    assert_eq!(exit::chain(&error), "task broken failed: no more input");
    assert!(shutdown.is_requested());
}

#[tokio::test]
async fn a_panic_is_an_error_with_its_message() {
    let (group, shutdown) = (TaskGroup::new(), Shutdown::new());
    group.spawn("steady", until_stopped(shutdown.clone()));
    group.spawn("wild", async {
        assert_eq!(1, 2, "numbers differ");
        Ok::<_, BoxError>(())
    });
    let error = group
        .run_until(&shutdown, LONG)
        .await
        .expect_err("one task panics")
        .to_string();
    assert!(
        error.starts_with("task wild panicked: ") && error.contains("numbers differ"),
        "{error}"
    );
}

#[tokio::test]
async fn a_requested_stop_waits_for_the_tasks() {
    let (group, shutdown) = (TaskGroup::new(), Shutdown::new());
    let (handed_back, at_the_end) = tokio::sync::oneshot::channel();
    group.spawn("careful", {
        let shutdown = shutdown.clone();
        async move {
            shutdown.requested().await;
            tokio::task::yield_now().await;
            handed_back.send(()).map_err(|()| "nobody waits")
        }
    });
    shutdown.trigger();
    group
        .run_until(&shutdown, LONG)
        .await
        .expect("the task ends in time");
    at_the_end.await.expect("the task got to its end");
}

#[tokio::test]
async fn a_task_that_does_not_stop_is_named_and_aborted() {
    let (group, shutdown) = (TaskGroup::new(), Shutdown::new());
    let (held, released) = tokio::sync::oneshot::channel::<()>();
    group.spawn("stubborn", async move {
        let _held = held;
        pending::<Result<(), BoxError>>().await
    });
    shutdown.trigger();
    let error = group
        .run_until(&shutdown, Duration::ZERO)
        .await
        .expect_err("it does not stop");
    assert_eq!(error.to_string(), "tasks did not stop within 0ns: stubborn");
    released
        .await
        .expect_err("the aborted task lets go of what it held");
}

#[tokio::test]
async fn a_task_can_spawn_another_which_is_watched_too() {
    let (group, shutdown) = (TaskGroup::new(), Shutdown::new());
    group.spawn("parent", {
        let group = group.clone();
        async move {
            group.spawn("child", async { Err::<(), _>("child's fault") });
            pending::<Result<(), BoxError>>().await
        }
    });
    let error = group
        .run_until(&shutdown, Duration::ZERO)
        .await
        .expect_err("the child fails");
    assert_eq!(exit::chain(&error), "task child failed: child's fault");
}

#[tokio::test]
async fn a_group_whose_tasks_are_done_ends_without_being_asked() {
    let (group, shutdown) = (TaskGroup::new(), Shutdown::new());
    group.spawn("short", async { Ok::<_, BoxError>(()) });
    group.run_until(&shutdown, LONG).await.expect("the task succeeds");
    assert!(!shutdown.is_requested());
}
