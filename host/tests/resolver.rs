//! The resolver against servers that answer, that lie, and that are not there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/dns.rs"]
mod dns;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dns::{Dns, NXDOMAIN, Query, REFUSED, SERVFAIL, TRUNCATED};
use wasmta::net::{Answer, Config, Error, Kind, Name, Resolver};

fn config(servers: &[SocketAddr]) -> Config {
    let timeout = "500ms".parse().unwrap();
    Config { servers: Some(servers.to_vec()), timeout, ..Config::default() }
}

fn resolver(dns: &Dns) -> Resolver {
    Resolver::new(&config(&[dns.address])).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn ask(resolver: &Resolver, text: &str, kind: Kind) -> Result<Vec<String>, Error> {
    let answer: Answer = resolver.lookup(&name(text), kind).await?;
    Ok(answer.records.iter().map(ToString::to_string).collect())
}

fn failure(result: Result<Vec<String>, Error>) -> String {
    match result {
        Err(Error::Failure(why)) => why,
        other => panic!("no failure but {other:?}"),
    }
}

const ZONE: &str = "
    example.test A 192.0.2.1
    example.test A 192.0.2.2
    example.test AAAA 2001:db8::1
    example.test MX 10 mx1.example.test
    example.test MX 20 MX2.example.test
    example.test TXT v=spf1 -all
    null.test MX 0 .
    www.example.test CNAME web.example.test
    web.example.test CNAME example.test
    lost.example.test CNAME nowhere.test
    1.2.0.192.in-addr.arpa PTR example.test
";

#[tokio::test]
async fn every_kind_is_answered() {
    let dns = Dns::zone(ZONE);
    let resolver = resolver(&dns);
    for (asked, kind, expected) in [
        ("example.test", Kind::A, &["192.0.2.1", "192.0.2.2"][..]),
        ("EXAMPLE.test.", Kind::Aaaa, &["2001:db8::1"]),
        ("example.test", Kind::Mx, &["10 mx1.example.test", "20 mx2.example.test"]),
        ("example.test", Kind::Txt, &["v=spf1 -all"]),
        ("null.test", Kind::Mx, &["0 ."]),
        ("null.test", Kind::A, &[]),
        ("test", Kind::A, &[]),
        ("www.example.test", Kind::A, &["192.0.2.1", "192.0.2.2"]),
        ("www.example.test", Kind::Ptr, &[]),
        ("1.2.0.192.in-addr.arpa", Kind::Ptr, &["example.test"]),
    ] {
        assert_eq!(ask(&resolver, asked, kind).await.as_deref(), Ok(&expected.map_owned()[..]), "{asked} {kind}");
    }
    assert_eq!(ask(&resolver, "nowhere.test", Kind::A).await, Err(Error::NoSuchName));
    assert_eq!(ask(&resolver, "lost.example.test", Kind::A).await, Err(Error::NoSuchName));
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[tokio::test]
async fn answers_and_refusals_are_kept_failures_for_a_moment() {
    let dns = Dns::new(|query| {
        let records = match query.name.as_str() {
            "broken.test" => return vec![query.reply(SERVFAIL, 0, &[])],
            "nowhere.test" => return vec![query.reply(NXDOMAIN, 0, &[])],
            _ => ["good.test A 192.0.2.1"],
        };
        vec![query.reply(0, 0, &records)]
    });
    let resolver = resolver(&dns);
    for _ in 0..3 {
        assert_eq!(ask(&resolver, "good.test", Kind::A).await, Ok(vec!["192.0.2.1".into()]));
        assert_eq!(ask(&resolver, "nowhere.test", Kind::A).await, Err(Error::NoSuchName));
        assert!(failure(ask(&resolver, "broken.test", Kind::A).await).contains("Server Failure"));
    }
    assert_eq!(dns.asked(), ["good.test A", "nowhere.test A", "broken.test A"]);
    let ttl = resolver.lookup(&name("good.test"), Kind::A).await.unwrap().ttl;
    assert!(ttl <= Duration::from_secs(60) && ttl > Duration::from_secs(50), "{ttl:?}");
}

#[tokio::test]
async fn the_config_bounds_how_long_answers_are_kept() {
    let dns = Dns::zone(ZONE);
    let bounds =
        Config { max_ttl: "10s".parse().unwrap(), max_negative_ttl: "0s".parse().unwrap(), ..config(&[dns.address]) };
    let resolver = Resolver::new(&bounds).unwrap();
    assert_eq!(resolver.lookup(&name("example.test"), Kind::A).await.unwrap().ttl, Duration::from_secs(10));
    for _ in 0..2 {
        assert_eq!(ask(&resolver, "nowhere.test", Kind::A).await, Err(Error::NoSuchName));
    }
    assert_eq!(dns.asked(), ["example.test A", "nowhere.test A", "nowhere.test A"]);
}

#[tokio::test]
async fn a_question_that_many_have_is_asked_once() {
    let dns = Dns::new(|query| {
        std::thread::sleep(Duration::from_millis(100));
        vec![query.reply(0, 0, &["good.test A 192.0.2.1"])]
    });
    let resolver = resolver(&dns);
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { ask(&resolver, "good.test", Kind::A).await })
        })
        .collect();
    for one in crowd {
        assert_eq!(one.await.unwrap(), Ok(vec!["192.0.2.1".into()]));
    }
    assert_eq!(dns.asked().len(), 1);
}

#[tokio::test]
async fn the_answer_outlives_who_asked() {
    let dns = Dns::new(|query| {
        std::thread::sleep(Duration::from_millis(100));
        vec![query.reply(0, 0, &["good.test A 192.0.2.1"])]
    });
    let resolver = resolver(&dns);
    let hasty = tokio::time::timeout(Duration::from_millis(10), ask(&resolver, "good.test", Kind::A)).await;
    assert!(hasty.is_err());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(ask(&resolver, "good.test", Kind::A).await.is_ok());
    assert_eq!(dns.asked().len(), 1);
}

#[tokio::test]
async fn long_answers_come_over_tcp() {
    let text = "x".repeat(40_000);
    let dns = Dns::zone(&format!("long.test TXT {text}"));
    assert_eq!(ask(&resolver(&dns), "long.test", Kind::Txt).await, Ok(vec![text]));
    assert_eq!(dns.queries().iter().map(|query| query.tcp).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn hostile_answers_are_failures() {
    let many: Vec<String> = (0..1000).map(|n| format!("x.test A 10.0.{}.{}", n / 256, n % 256)).collect();
    let chain: Vec<String> = (0..60)
        .map(|n| format!("{} CNAME c{n}.test", if n == 0 { "x.test".into() } else { format!("c{}.test", n - 1) }))
        .collect();
    let say = |what: &'static str| {
        let (many, chain) = (many.clone(), chain.clone());
        Dns::new(move |query: &Query| {
            let refs = |records: &'_ [String]| records.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
            match what {
                "garbage" => vec![[&query.id.to_be_bytes()[..], &[0xff; 40]].concat()],
                "half" => {
                    let whole = query.reply(0, 0, &["x.test A 192.0.2.1"]);
                    vec![whole[..whole.len() - 3].to_vec()]
                }
                "always truncated" => vec![query.reply(0, TRUNCATED, &[])],
                "servfail" => vec![query.reply(SERVFAIL, 0, &[])],
                "refused" => vec![query.reply(REFUSED, 0, &[])],
                "alias loop" => vec![query.reply(0, 0, &["x.test CNAME y.test", "y.test CNAME x.test"])],
                "alias to itself" => vec![query.reply(0, 0, &["x.test CNAME x.test"])],
                "long alias chain" => {
                    let records = refs(&chain);
                    vec![query.reply(0, 0, &records.lines().collect::<Vec<_>>())]
                }
                "endless aliases" => {
                    let alias =
                        format!("{} CNAME a{}.test", query.name, query.name.len() + query.name.matches('a').count());
                    vec![query.reply(0, 0, &[&alias, "unasked.test A 192.0.2.66"])]
                }
                "too many" if !query.tcp => vec![query.reply(0, TRUNCATED, &[])],
                "too many" => {
                    let records = refs(&many);
                    vec![query.reply(0, 0, &records.lines().collect::<Vec<_>>())]
                }
                _ => panic!("{what}"),
            }
        })
    };
    for what in [
        "garbage",
        "half",
        "always truncated",
        "servfail",
        "refused",
        "alias loop",
        "alias to itself",
        "long alias chain",
        "endless aliases",
        "too many",
    ] {
        let dns = say(what);
        let why = failure(ask(&resolver(&dns), "x.test", Kind::A).await);
        assert!(!why.is_empty() && dns.asked().len() <= 20, "{what}: {why}, {:?}", dns.asked());
    }
}

#[tokio::test]
async fn names_that_are_none_are_left_out() {
    let dns = Dns::new(|query| {
        vec![match query.name.as_str() {
            "some.test" => query.reply(0, 0, &["some.test PTR a^b.test", "some.test PTR good.test"]),
            _ => query.reply(0, 0, &["none.test MX 10 sp ace.test", "none.test MX 10 back\\slash.test"]),
        }]
    });
    let resolver = resolver(&dns);
    assert_eq!(ask(&resolver, "some.test", Kind::Ptr).await, Ok(vec!["good.test".into()]));
    assert!(failure(ask(&resolver, "none.test", Kind::Mx).await).contains("no name that could be one"));
}

#[tokio::test]
async fn what_nobody_asked_for_is_not_believed() {
    let dns = Dns::new(|query| {
        vec![
            query.forged(query.id.wrapping_add(1), &["x.test A 192.0.2.66"]),
            query.about_another("y.test", &["x.test A 192.0.2.66"]),
            query.reply(0, 0, &["other.test A 192.0.2.66", "x.test AAAA 2001:db8::66", "x.test A 192.0.2.1"]),
        ]
    });
    let resolver = resolver(&dns);
    assert_eq!(ask(&resolver, "x.test", Kind::A).await, Ok(vec!["192.0.2.1".into()]));
    assert_eq!(ask(&resolver, "other.test", Kind::A).await, Ok(vec!["192.0.2.66".into()]));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let good = Dns::zone(ZONE);
    for code in [SERVFAIL, REFUSED] {
        let bad = Dns::new(move |query| vec![query.reply(code, 0, &[])]);
        let resolver = Resolver::new(&config(&[bad.address, good.address])).unwrap();
        assert!(ask(&resolver, "example.test", Kind::A).await.is_ok());
    }
    let silent = Dns::new(|_| Vec::new());
    let resolver = Resolver::new(&config(&[silent.address, good.address])).unwrap();
    assert!(ask(&resolver, "example.test", Kind::A).await.is_ok());
}

/// A port that takes no datagrams, and that no other test gets.
fn nobody() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    socket
}

#[tokio::test]
async fn nobody_waits_for_a_dead_server_twice() {
    // Nobody listens: told at once, and not asked again.
    let nobody = nobody();
    let absent = Resolver::new(&config(&[nobody.local_addr().unwrap()])).unwrap();
    let started = Instant::now();
    failure(ask(&absent, "a.test", Kind::A).await);
    assert!(failure(ask(&absent, "b.test", Kind::A).await).contains("no DNS server answers"));
    assert!(started.elapsed() < Duration::from_millis(400), "{:?}", started.elapsed());

    // Nothing comes back: two questions wait, then all are told at once.
    let silent = Dns::new(|_| Vec::new());
    let waiting = Resolver::new(&config(&[silent.address])).unwrap();
    assert_eq!(ask(&waiting, "a.test", Kind::A).await, Err(Error::Timeout));
    tokio::time::sleep(Duration::from_millis(800)).await;
    let started = Instant::now();
    assert!(failure(ask(&waiting, "c.test", Kind::A).await).contains("no DNS server answers"));
    assert!(started.elapsed() < Duration::from_millis(200));
    assert_eq!(silent.asked(), vec!["a.test A"; silent.asked().len()]);
}

#[tokio::test]
async fn a_server_that_comes_back_is_asked_again() {
    let socket = nobody();
    let port = socket.local_addr().unwrap();
    let resolver = Resolver::new(&config(&[port])).unwrap();
    failure(ask(&resolver, "a.test", Kind::A).await);
    drop(socket);
    let socket = UdpSocket::bind(port).unwrap();
    let zone = Dns::zone(ZONE);
    let address = zone.address;
    // Passes each datagram on to the server that now lives behind the port.
    std::thread::spawn(move || {
        let mut octets = [0; 2048];
        while let Ok((len, client)) = socket.recv_from(&mut octets) {
            let inner = UdpSocket::bind("127.0.0.1:0").unwrap();
            inner.send_to(&octets[..len], address).unwrap();
            let (len, _) = inner.recv_from(&mut octets).unwrap();
            socket.send_to(&octets[..len], client).unwrap();
        }
    });
    let begin = Instant::now();
    while ask(&resolver, "example.test", Kind::A).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it is never asked again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_zone_that_does_not_answer_makes_no_server_look_dead() {
    let dns = Dns::new(|query| match query.name.as_str() {
        name if name.ends_with("slow.test") => Vec::new(),
        _ => vec![query.reply(0, 0, &["good.test A 192.0.2.1"])],
    });
    let resolver = resolver(&dns);
    let slow: Vec<_> = (0..20)
        .map(|n| {
            let resolver = resolver.clone();
            tokio::spawn(async move { ask(&resolver, &format!("n{n}.slow.test"), Kind::A).await })
        })
        .collect();
    for one in slow {
        assert_eq!(one.await.unwrap(), Err(Error::Timeout));
    }
    assert_eq!(ask(&resolver, "good.test", Kind::A).await, Ok(vec!["192.0.2.1".into()]));
}

#[tokio::test]
async fn no_servers_no_dns() {
    let none = Resolver::new(&config(&[])).unwrap();
    assert!(failure(ask(&none, "example.test", Kind::A).await).contains("names no DNS servers"));
    assert_eq!(none.client_name("127.0.0.1".parse().unwrap()).await, Some(name("localhost")));
}

#[tokio::test]
async fn clients_have_the_names_that_dns_confirms() {
    let dns = Dns::zone(
        "1.2.0.192.in-addr.arpa PTR mx.example.test
         mx.example.test A 192.0.2.1
         2.2.0.192.in-addr.arpa PTR mx.example.test
         3.2.0.192.in-addr.arpa PTR a.example.test
         3.2.0.192.in-addr.arpa PTR mx3.example.test
         mx3.example.test A 192.0.2.33
         mx3.example.test A 192.0.2.3
         4.2.0.192.in-addr.arpa PTR 192.0.2.4
         192.0.2.4 A 192.0.2.4
         5.2.0.192.in-addr.arpa CNAME 5.0-8.2.0.192.in-addr.arpa
         5.0-8.2.0.192.in-addr.arpa PTR mx.example.net
         mx.example.net A 192.0.2.5
         9.0.0.127.in-addr.arpa PTR nine.example.test
         nine.example.test A 127.0.0.9
         1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR six.example.test
         six.example.test AAAA 2001:db8::1",
    );
    let resolver = resolver(&dns);
    for (address, expected) in [
        ("192.0.2.1", Some("mx.example.test")),
        ("::ffff:192.0.2.1", Some("mx.example.test")),
        ("192.0.2.2", None),
        ("192.0.2.3", Some("mx3.example.test")),
        ("192.0.2.4", None),
        ("192.0.2.5", Some("mx.example.net")),
        ("192.0.2.6", None),
        ("2001:db8::1", Some("six.example.test")),
        ("127.0.0.9", Some("nine.example.test")),
        ("127.0.0.1", Some("localhost")),
        ("::1", Some("localhost")),
        ("127.0.0.2", None),
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(resolver.client_name(address).await, expected.map(name), "{address}");
    }
}

#[tokio::test]
async fn loopback_addresses_are_no_question_for_others() {
    // 192.0.2.53 would be asked about nothing here: the answer is there at once.
    let resolver = Resolver::new(&config(&["192.0.2.53:53".parse().unwrap()])).unwrap();
    let started = Instant::now();
    assert_eq!(resolver.client_name("127.0.0.1".parse().unwrap()).await, Some(name("localhost")));
    assert_eq!(resolver.client_name("127.0.0.2".parse().unwrap()).await, None);
    assert!(started.elapsed() < Duration::from_millis(100));
}
