//! Hearing of revisions that other nodes store: by NOTIFY, and by looking every two seconds, as a
//! notice is lost with the connection that it was for.

use std::{future::poll_fn, sync::Weak, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_postgres::AsyncMessage;

use super::{CALL_TIMEOUT, Fault, MAX_PAUSE, MIN_PAUSE, Shared, bounded, rollouts::known};
use crate::store::Known;

/// How often it is looked.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Keeps `changes` at the latest revision, until nobody has the store any more.
pub async fn follow(shared: Weak<Shared>, changes: watch::Sender<Known>) {
    let mut pause = MIN_PAUSE;
    while let Some(strong) = shared.upgrade() {
        let address = strong.address.clone();
        drop(strong);
        // What is wrong is told by the calls; here only the next try matters.
        if let Ok((client, connection)) = address.listen().await {
            let (send, notices) = mpsc::channel(1);
            tokio::spawn(hear(connection, send));
            _ = look(&shared, &client, notices, &changes, &mut pause).await;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Moves the connection on, and passes word of notices.
async fn hear(mut connection: super::address::Connection, send: mpsc::Sender<()>) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(_) = message {
            // When one waits already, the look that it leads to will see this one, too.
            _ = send.try_send(());
        }
    }
}

async fn look(
    shared: &Weak<Shared>,
    client: &tokio_postgres::Client,
    mut notices: mpsc::Receiver<()>,
    changes: &watch::Sender<Known>,
    pause: &mut Duration,
) -> Result<(), Fault> {
    bounded(CALL_TIMEOUT, async { Ok(client.batch_execute("LISTEN sluice").await?) }).await?;
    while shared.strong_count() > 0 {
        // The tables may not be there yet: whoever calls first makes them.
        let now = bounded(CALL_TIMEOUT, known(client)).await?;
        *pause = MIN_PAUSE;
        changes.send_if_modified(|known| std::mem::replace(known, now) != now);
        if let Ok(None) = tokio::time::timeout(POLL_INTERVAL, notices.recv()).await {
            // The connection has ended.
            break;
        }
    }
    Ok(())
}
