//! Against the `h2` crate, in memory, in both roles: whatever one side says, the other hears.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// Two directions of bytes.
#[derive(Default)]
struct Wires {
    to_h2: VecDeque<u8>,
    from_h2: Vec<u8>,
    closed: bool,
}

/// The end of the wires that `h2` holds. Everything is polled in turns, so nobody is woken.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<Wires>>);

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wires = self.0.borrow_mut();
        if wires.to_h2.is_empty() {
            return if wires.closed { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let n = buf.remaining().min(wires.to_h2.len());
        let bytes: Vec<u8> = wires.to_h2.drain(..n).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().from_h2.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that are polled in turns.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<Vec<Task>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push(Box::pin(task));
    }

    fn poll(&self) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut tasks = std::mem::take(&mut *self.0.borrow_mut());
        tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
        self.0.borrow_mut().append(&mut tasks);
        self.0.borrow().len()
    }
}

/// Our side: a connection and what reacts to its events.
trait Application {
    fn event(&mut self, connection: &mut Connection, event: Event);
    fn turn(&mut self, connection: &mut Connection);
    fn is_done(&self) -> bool;
}

/// Lets both sides talk until all is said. `cut`: the most bytes that arrive at once.
fn converse(
    connection: &mut Connection,
    application: &mut impl Application,
    pipe: &Pipe,
    tasks: &Tasks,
    cut: usize,
) {
    let mut events = VecDeque::new();
    for _ in 0..200_000 {
        let left = tasks.poll();
        let bytes = std::mem::take(&mut pipe.0.borrow_mut().from_h2);
        for piece in bytes.chunks(cut) {
            let result = connection.receive(Chunk::copy_of(piece), 0, &mut events);
            assert_eq!(result, Ok(()));
        }
        while let Some(event) = events.pop_front() {
            application.event(connection, event);
        }
        application.turn(connection);
        if let Some(output) = connection.take_output(Vec::new()) {
            pipe.0.borrow_mut().to_h2.extend(output);
            connection.poll_writable(&mut events);
        } else if application.is_done() && left == 0 {
            return;
        }
    }
    panic!("no end to it: {} streams", connection.stream_count());
}

/// A body that tells where a byte is missing.
fn body(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, body: Vec<u8>, trailers: bool) {
    let mut left = Bytes::from(body);
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(n)) => stream.send_data(left.split_to(n.min(left.len())), false).unwrap(),
            _ => return,
        }
    }
    if trailers {
        let mut map = http::HeaderMap::new();
        map.insert("x-sum", "1".parse().unwrap());
        stream.send_trailers(map).unwrap();
    } else {
        stream.send_data(Bytes::new(), true).unwrap();
    }
}

async fn read_all(stream: &mut h2::RecvStream) -> Result<(Vec<u8>, bool), h2::Error> {
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part?;
        stream.flow_control().release_capacity(part.len())?;
        body.extend_from_slice(&part);
    }
    Ok((body, stream.trailers().await?.is_some()))
}

/// What one exchange carries.
#[derive(Clone, Debug)]
struct Plan {
    up: usize,
    trailers: bool,
    /// The asking side loses interest.
    cancel: bool,
    fields: Vec<(String, String)>,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let size = prop_oneof![Just(0usize), 1..2_000usize, 60_000..200_000usize];
    let field = ("[a-z]{1,12}", "[!-~]([ -~]{0,80}[!-~])?");
    let one = (size, any::<bool>(), 0u8..5, prop::collection::vec(field, 0..6));
    let one = one.prop_map(|(up, trailers, cancel, fields)| Plan {
        up,
        trailers,
        cancel: cancel == 0,
        fields: fields.into_iter().map(|(name, value)| (format!("x-{name}"), value)).collect(),
    });
    prop::collection::vec(one, 1..8)
}

/// What is still to be sent, and once the request is over its trailers, if it had any.
type Answer = (Vec<u8>, Option<Option<Vec<u8>>>);

/// Our server: sends back what it gets, body, trailers and the fields that begin with `x-`.
#[derive(Default)]
struct Echo {
    open: BTreeMap<StreamId, Answer>,
    resets: usize,
    shut_down: bool,
}

impl Echo {
    fn flush(&mut self, connection: &mut Connection, stream: StreamId) {
        let Some((pending, end)) = self.open.get_mut(&stream) else { return };
        let finish = *end == Some(None);
        if !pending.is_empty() || finish {
            // Gone if the client has cancelled meanwhile: the event for it is on its way.
            let Ok(n) = connection.send_data(stream, pending, finish) else { return };
            pending.drain(..n);
        }
        if !pending.is_empty() {
            return;
        }
        if let Some(Some(trailers)) = end {
            let _ = connection.send_trailers(stream, trailers);
        }
        if end.is_some() {
            self.open.remove(&stream);
        }
    }
}

fn copied(block: &HeaderBlock, out: &mut Vec<u8>) {
    for (name, value) in block.iter().filter(|(name, _)| name.starts_with(b"x-")) {
        Encoder::field(out, name, value);
    }
}

impl Application for Echo {
    fn event(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Head { stream, .. } if !connection.is_open(stream) => {}
            Event::Head { stream, block, end } => {
                let mut head = encoded_status(200);
                copied(&block, &mut head);
                connection.send_head(stream, &encoded_status(103), false).unwrap();
                connection.send_head(stream, &head, false).unwrap();
                connection.recycle(block);
                self.open.insert(stream, (Vec::new(), end.then_some(None)));
            }
            Event::Data { stream, data, end } => {
                connection.release(stream, data.len());
                let Some((pending, over)) = self.open.get_mut(&stream) else { return };
                pending.extend_from_slice(data.bytes());
                *over = end.then_some(None);
            }
            Event::Trailers { stream, block } => {
                let mut trailers = Vec::new();
                copied(&block, &mut trailers);
                if let Some((_, over)) = self.open.get_mut(&stream) {
                    *over = Some(Some(trailers));
                }
            }
            Event::Writable { .. } => {}
            Event::Reset { stream, by_peer, .. } => {
                assert!(by_peer);
                self.open.remove(&stream);
                self.resets += 1;
            }
            Event::GoingAway { .. } | Event::SettingsChanged | Event::PingAck => {}
        }
    }

    fn turn(&mut self, connection: &mut Connection) {
        if std::mem::take(&mut self.shut_down) {
            connection.shut_down();
        }
        // All of a turn in one: `h2` has no patience with crumbs.
        for stream in self.open.keys().copied().collect::<Vec<_>>() {
            self.flush(connection, stream);
        }
    }

    fn is_done(&self) -> bool {
        self.open.is_empty()
    }
}

fn ask_us(plans: Vec<Plan>, window: u32, frame: u32, cut: usize) {
    let (pipe, tasks) = (Pipe::default(), Tasks::default());
    let answered = Rc::new(RefCell::new(0));
    let cancelled = plans.iter().filter(|plan| plan.cancel).count();
    let expected = plans.len() - cancelled;
    {
        let (pipe, spawn, answered) = (pipe.clone(), tasks.clone(), answered.clone());
        tasks.spawn(async move {
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(window).max_frame_size(frame);
            builder.initial_connection_window_size(window.max(65_535));
            let (sender, connection) = builder.handshake::<_, Bytes>(pipe).await.unwrap();
            spawn.spawn(async move { connection.await.unwrap() });
            for plan in plans {
                let (mut sender, answered) = (sender.clone(), answered.clone());
                spawn.spawn(async move {
                    sender = sender.ready().await.unwrap();
                    let mut request =
                        http::Request::builder().method("POST").uri("https://a.test/p?q=1");
                    for (name, value) in &plan.fields {
                        request = request.header(name, value);
                    }
                    let request = request.body(()).unwrap();
                    let (response, mut stream) = sender.send_request(request, false).unwrap();
                    if plan.cancel {
                        let _ = stream.send_data(Bytes::from_static(b"abc"), false);
                        stream.send_reset(h2::Reason::CANCEL);
                        return;
                    }
                    let sending = send_all(&mut stream, body(plan.up), plan.trailers);
                    let reading = async {
                        let response = response.await.unwrap();
                        assert_eq!(response.status(), 200);
                        let mut fields: Vec<_> = response
                            .headers()
                            .iter()
                            .map(|(name, value)| {
                                (name.to_string(), value.to_str().unwrap().to_owned())
                            })
                            .collect();
                        let mut asked = plan.fields.clone();
                        fields.sort();
                        asked.sort();
                        assert_eq!(fields, asked);
                        read_all(&mut response.into_body()).await.unwrap()
                    };
                    let (got, trailers) = both(sending, reading).await;
                    assert!(got == body(plan.up), "{} of {} bytes", got.len(), plan.up);
                    assert_eq!(trailers, plan.trailers);
                    *answered.borrow_mut() += 1;
                });
            }
        });
    }
    let mut connection = Connection::new(Config::SERVER);
    let mut echo = Echo::default();
    converse(&mut connection, &mut echo, &pipe, &tasks, cut);
    assert_eq!(*answered.borrow(), expected);
    assert!(connection.is_idle());
    assert_eq!(connection.unreleased(), 0);
    assert!(echo.resets <= cancelled);
}

/// Both at once; the second's result.
async fn both<T>(first: impl Future<Output = ()>, second: impl Future<Output = T>) -> T {
    let (mut first, mut second) = (Box::pin(first), Box::pin(second));
    let (mut sent, mut result) = (false, None);
    poll_fn(move |cx| {
        sent = sent || first.as_mut().poll(cx).is_ready();
        if result.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(cx)
        {
            result = Some(value);
        }
        match (sent, result.is_some()) {
            (true, true) => Poll::Ready(result.take().unwrap()),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Our client: sends what is planned, and checks what comes back.
#[derive(Default)]
struct Asking {
    queue: VecDeque<Plan>,
    /// Plan, bytes sent, bytes received.
    open: BTreeMap<StreamId, (Plan, usize, Vec<u8>)>,
    answered: usize,
    cancelled: usize,
    going_away: bool,
}

impl Asking {
    fn push(&mut self, connection: &mut Connection, stream: StreamId) {
        let Some((plan, sent, _)) = self.open.get_mut(&stream) else { return };
        let bytes = body(plan.up);
        let end = !plan.trailers;
        *sent += connection.send_data(stream, &bytes[*sent..], end).unwrap_or(0);
        if plan.trailers && *sent == bytes.len() && connection.capacity(stream) > 0 {
            let _ = connection.send_trailers(stream, &block(&[("x-sum", "1")]));
        } else if plan.trailers && *sent == bytes.len() {
            connection.want_write(stream);
        }
    }

    fn finish(&mut self, stream: StreamId, trailers: bool) {
        let (plan, _, got) = self.open.remove(&stream).unwrap();
        assert!(got == body(plan.up), "{} of {} bytes", got.len(), plan.up);
        assert_eq!(trailers, plan.trailers);
        self.answered += 1;
    }
}

impl Application for Asking {
    fn event(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Head { stream, block, end } => {
                let Some((plan, ..)) = self.open.get(&stream) else { return };
                let fields: Vec<_> =
                    list(&block).into_iter().filter(|(name, _)| name.starts_with("x-")).collect();
                assert_eq!(block.pseudo.status, 200);
                let (mut fields, mut asked) = (fields, plan.fields.clone());
                fields.sort();
                asked.sort();
                assert_eq!(fields, asked);
                connection.recycle(block);
                if end {
                    self.finish(stream, false);
                }
            }
            Event::Data { stream, data, end } => {
                connection.release(stream, data.len());
                let Some((_, _, got)) = self.open.get_mut(&stream) else { return };
                got.extend_from_slice(data.bytes());
                if end {
                    self.finish(stream, false);
                }
            }
            Event::Trailers { stream, .. } => self.finish(stream, true),
            Event::Writable { stream } => self.push(connection, stream),
            Event::Reset { stream, code, .. } => panic!("{stream} was reset: {code}"),
            Event::GoingAway { .. } => self.going_away = true,
            Event::SettingsChanged | Event::PingAck => {}
        }
    }

    fn turn(&mut self, connection: &mut Connection) {
        while connection.is_settled()
            && connection.available_streams() > 0
            && let Some(plan) = self.queue.pop_front()
        {
            let mut head = Vec::new();
            Encoder::method(&mut head, b"POST");
            Encoder::scheme(&mut head, b"http");
            Encoder::authority(&mut head, b"b.test");
            Encoder::path(&mut head, b"/p?q=1");
            for (name, value) in &plan.fields {
                Encoder::field(&mut head, name.as_bytes(), value.as_bytes());
            }
            let stream = connection.open(&head, false, RequestKind::Plain).unwrap();
            if plan.cancel {
                connection.send_data(stream, b"abc", false).unwrap();
                connection.reset(stream, ErrorCode::CANCEL);
                self.cancelled += 1;
                continue;
            }
            self.open.insert(stream, (plan, 0, Vec::new()));
            self.push(connection, stream);
        }
    }

    fn is_done(&self) -> bool {
        self.open.is_empty() && self.queue.is_empty()
    }
}

/// An `h2` server that echoes; it ends gracefully once it has taken `most` requests.
fn h2_echo(pipe: Pipe, tasks: Tasks, window: u32, streams: u32, most: usize) {
    let spawn = tasks.clone();
    tasks.spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(window).max_concurrent_streams(streams);
        builder.initial_connection_window_size(window.max(65_535));
        let mut connection = builder.handshake::<_, Bytes>(pipe).await.unwrap();
        let mut taken = 0;
        while let Some(request) = connection.accept().await {
            let Ok((request, mut respond)) = request else { return };
            taken += 1;
            if taken == most {
                connection.graceful_shutdown();
            }
            spawn.spawn(async move {
                let (parts, mut stream) = request.into_parts();
                assert_eq!(parts.uri.path_and_query().unwrap(), "/p?q=1");
                assert_eq!(parts.uri.authority().unwrap(), "b.test");
                let mut response = http::Response::builder().status(200);
                for (name, value) in &parts.headers {
                    response = response.header(name, value);
                }
                let Ok((body, trailers)) = read_all(&mut stream).await else { return };
                let response = response.body(()).unwrap();
                let Ok(mut out) = respond.send_response(response, false) else { return };
                send_all(&mut out, body, trailers).await;
            });
        }
    });
}

fn ask_h2(plans: Vec<Plan>, window: u32, streams: u32, cut: usize) {
    let (pipe, tasks) = (Pipe::default(), Tasks::default());
    h2_echo(pipe.clone(), tasks.clone(), window, streams, usize::MAX);
    let mut connection = Connection::new(Config::CLIENT);
    let cancelled = plans.iter().filter(|plan| plan.cancel).count();
    let expected = plans.len() - cancelled;
    // The server's task ends with the connection: it is closed once all is answered.
    struct Closing(Asking, Pipe);
    impl Application for Closing {
        fn event(&mut self, connection: &mut Connection, event: Event) {
            self.0.event(connection, event);
        }
        fn turn(&mut self, connection: &mut Connection) {
            self.0.turn(connection);
            if self.0.is_done() {
                self.1.0.borrow_mut().closed = true;
            }
        }
        fn is_done(&self) -> bool {
            self.0.is_done()
        }
    }
    let asking = Asking { queue: plans.into(), ..Asking::default() };
    let mut asking = Closing(asking, pipe.clone());
    converse(&mut connection, &mut asking, &pipe, &tasks, cut);
    assert_eq!((asking.0.answered, asking.0.cancelled), (expected, cancelled));
    assert!(connection.is_idle());
    assert_eq!(connection.unreleased(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_h2_client_is_served(
        plans in plans(),
        window in prop_oneof![100u32..2_000, Just(65_535), Just(1 << 20)],
        frame in prop_oneof![Just(16_384u32), Just(100_000)],
        cut in prop_oneof![1usize..30, Just(4_096), Just(1 << 20)],
    ) {
        ask_us(plans, window, frame, cut);
    }

    #[test]
    fn an_h2_server_is_asked(
        plans in plans(),
        window in prop_oneof![100u32..2_000, Just(65_535), Just(1 << 20)],
        streams in 1u32..5,
        cut in prop_oneof![1usize..30, Just(4_096), Just(1 << 20)],
    ) {
        ask_h2(plans, window, streams, cut);
    }
}

#[test]
fn an_h2_server_that_goes_away_finishes_what_it_took() {
    let (pipe, tasks) = (Pipe::default(), Tasks::default());
    h2_echo(pipe.clone(), tasks.clone(), 65_535, 100, 2);
    let plan = Plan { up: 100_000, trailers: true, cancel: false, fields: Vec::new() };
    let mut connection = Connection::new(Config::CLIENT);
    let mut asking = Asking { queue: vec![plan; 2].into(), ..Asking::default() };
    converse(&mut connection, &mut asking, &pipe, &tasks, 4_096);
    assert!(asking.going_away && connection.is_going_away());
    assert_eq!(asking.answered, 2);
    assert_eq!(connection.available_streams(), 0);
}

#[test]
fn an_h2_client_is_told_to_go_and_may_finish() {
    let (pipe, tasks) = (Pipe::default(), Tasks::default());
    let finished = Rc::new(RefCell::new(false));
    {
        let (pipe, spawn, finished) = (pipe.clone(), tasks.clone(), finished.clone());
        tasks.spawn(async move {
            let (sender, connection) = h2::client::handshake(pipe).await.unwrap();
            // Ends by itself once the GOAWAY is there and its streams are done.
            spawn.spawn(async move { connection.await.unwrap() });
            let mut sender = sender.ready().await.unwrap();
            let request = http::Request::post("https://a.test/").body(()).unwrap();
            let (response, mut stream) = sender.send_request(request, false).unwrap();
            let sending = send_all(&mut stream, body(100_000), false);
            let reading = async {
                let mut response = response.await.unwrap().into_body();
                read_all(&mut response).await.unwrap().0
            };
            assert!(both(sending, reading).await == body(100_000));
            *finished.borrow_mut() = true;
        });
    }
    let mut connection = Connection::new(Config::SERVER);
    let mut echo = Echo { shut_down: true, ..Echo::default() };
    converse(&mut connection, &mut echo, &pipe, &tasks, 1_000);
    assert!(*finished.borrow());
    assert!(connection.is_going_away());
}
