//! Tables of what happens when, with times and chances given.

use super::*;

const IN_THE_MIDDLE: f64 = 0.5;

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_millis(seconds * 1000)
}

fn id(number: u64) -> QueueId {
    QueueId::from_u64(number)
}

fn schedule() -> Schedule {
    Schedule::new(Limits::from(&Config::default()))
}

fn site(name: &str) -> Destination {
    Destination::new(name)
}

fn entry(number: u64) -> Take {
    Take::Entry { id: id(number), forced: false }
}

fn down() -> Reply {
    Reply::transient(451, (4, 1), "connection refused")
}

#[test]
fn a_new_message_opens_a_worker_and_an_idle_one_is_called_for_the_next() {
    let mut schedule = schedule();
    assert_eq!(schedule.enter_fresh(id(1), &site("a"), at(0)), Some(Call::Dispatcher));
    let a = schedule.opening().expect("an opening");
    assert_eq!(schedule.opening(), None);
    assert_eq!(schedule.destination(a), Some(&site("a")));
    assert_eq!(schedule.take(a, true), entry(1));
    assert_eq!(schedule.take(a, false), Take::Idle);
    assert_eq!(schedule.enter_fresh(id(2), &site("a"), at(0)), Some(Call::Worker(a)));
    // One call for one entry; the second entry wants a second worker.
    assert_eq!(schedule.enter_fresh(id(3), &site("a"), at(0)), Some(Call::Dispatcher));
    assert_eq!(schedule.take(a, true), entry(2));
    assert_eq!(schedule.take(a, false), entry(3));
    assert_eq!(schedule.opening(), None, "what it was for has been taken");
    assert_eq!(schedule.take(a, false), Take::Idle);
    assert!(schedule.retire(a));
    assert_eq!(schedule.leave(a), None);
    assert!(schedule.summaries().is_empty(), "nothing is kept of an idle destination");
}

#[test]
fn concurrency_is_bounded_grows_with_success_and_shrinks_with_failure() {
    let mut schedule = schedule();
    for number in 0..100 {
        schedule.enter_fresh(id(number), &site("a"), at(0));
    }
    let mut workers = Vec::new();
    let open_all = |schedule: &mut Schedule, workers: &mut Vec<Site>| {
        while let Some(a) = schedule.opening() {
            assert!(matches!(schedule.take(a, true), Take::Entry { .. }));
            workers.push(a);
        }
        workers.len()
    };
    assert_eq!(open_all(&mut schedule, &mut workers), 5);
    let a = workers[0];
    for _ in 0..50 {
        schedule.reached(a);
    }
    assert_eq!(open_all(&mut schedule, &mut workers), 20);
    schedule.unreachable(a, down(), at(0), IN_THE_MIDDLE);
    assert_eq!(schedule.take(a, false), Take::Leave, "half as many are enough");
}

#[test]
fn a_called_worker_may_not_retire() {
    let mut schedule = schedule();
    schedule.enter_fresh(id(1), &site("a"), at(0));
    let a = schedule.opening().expect("an opening");
    assert_eq!((schedule.take(a, true), schedule.take(a, false)), (entry(1), Take::Idle));
    assert_eq!(schedule.enter_fresh(id(2), &site("a"), at(0)), Some(Call::Worker(a)));
    assert!(!schedule.retire(a));
    assert_eq!(schedule.take(a, true), entry(2));
}

#[test]
fn a_worker_that_leaves_with_work_to_do_is_replaced() {
    let mut schedule = schedule();
    schedule.enter_fresh(id(1), &site("a"), at(0));
    let a = schedule.opening().expect("an opening");
    schedule.desert(a);
    assert_eq!(schedule.leave(a), Some(Call::Dispatcher));
    assert_eq!(schedule.opening(), Some(a));
    assert_eq!(schedule.take(a, true), entry(1));
}

#[test]
fn oldest_first_but_the_new_are_not_starved() {
    let mut schedule = schedule();
    for number in [30, 10, 20] {
        schedule.enter(id(number), &site("a"), at(5), at(0));
    }
    for number in [41, 42, 43, 44] {
        schedule.enter_fresh(id(number), &site("a"), at(0));
    }
    schedule.advance(at(5));
    let a = schedule.opening().expect("an opening");
    let order: Vec<Take> = (0..7).map(|_| schedule.take(a, false)).collect();
    assert_eq!(order, [41, 10, 42, 20, 43, 30, 44].map(entry));
}

#[test]
fn nothing_is_tried_before_it_is_due() {
    let mut schedule = schedule();
    assert_eq!(schedule.next_wakeup(), None);
    assert_eq!(schedule.enter(id(1), &site("a"), at(300), at(0)), Some(Call::Dispatcher));
    assert_eq!(schedule.next_wakeup(), Some(at(300)));
    assert_eq!(schedule.enter(id(2), &site("b"), at(400), at(0)), None, "the alarm rings earlier anyway");
    assert_eq!(schedule.enter(id(3), &site("b"), at(200), at(0)), Some(Call::Dispatcher));
    assert_eq!(schedule.next_wakeup(), Some(at(200)));
    assert_eq!(schedule.advance(at(199)), (vec![], vec![]));
    assert_eq!(schedule.advance(at(200)), (vec![Call::Dispatcher], vec![]));
    assert_eq!(schedule.next_wakeup(), Some(at(300)));
    let b = schedule.opening().expect("an opening");
    assert_eq!((schedule.take(b, true), schedule.take(b, false)), (entry(3), Take::Idle));
}

#[test]
fn the_wait_doubles_up_to_its_limit_and_chance_spreads_it() {
    let schedule = schedule();
    let waits: Vec<u64> = (1..=7).map(|attempts| schedule.backoff(attempts, IN_THE_MIDDLE).as_secs()).collect();
    assert_eq!(waits, [300, 600, 1200, 2400, 4000, 4000, 4000]);
    assert_eq!(schedule.backoff(u16::MAX, IN_THE_MIDDLE).as_secs(), 4000);
    assert_eq!(schedule.backoff(1, 0.0).as_millis(), 262_500);
    assert_eq!(schedule.backoff(1, 1.0).as_millis(), 337_500);
}

#[test]
fn a_dead_destination_is_left_alone_and_nobody_else_waits() {
    let mut schedule = schedule();
    for number in 0..10 {
        schedule.enter_fresh(id(number), &site("dead"), at(0));
    }
    let dead = schedule.opening().expect("an opening");
    for _ in 0..3 {
        assert!(matches!(schedule.take(dead, false), Take::Entry { .. }));
        schedule.unreachable(dead, down(), at(10), IN_THE_MIDDLE);
    }
    assert_eq!(schedule.take(dead, false), Take::Leave);
    assert_eq!(schedule.leave(dead), None);
    assert_eq!(schedule.dead_reply(&site("dead")), Some(&down()));
    assert_eq!(schedule.enter_fresh(id(50), &site("dead"), at(11)), None);
    assert_eq!(schedule.opening(), None);
    schedule.enter_fresh(id(60), &site("alive"), at(11));
    let alive = schedule.opening().expect("an opening");
    assert_eq!(schedule.take(alive, true), entry(60));
    // The seven that were not tried, and the one that came later, are looked at when their senders should hear of them.
    let (_, overdue) = schedule.advance(at(4 * 3600));
    assert_eq!(overdue.len(), 8);
}

#[test]
fn a_dead_destination_is_probed_by_one_after_a_wait_that_doubles() {
    let mut schedule = schedule();
    for number in 0..20 {
        schedule.enter_fresh(id(number), &site("a"), at(0));
    }
    let a = schedule.opening().expect("an opening");
    for _ in 0..3 {
        schedule.take(a, false);
        schedule.unreachable(a, down(), at(0), IN_THE_MIDDLE);
    }
    schedule.leave(a);
    assert_eq!(schedule.opening(), None);
    let mut now = 0;
    for wait in [60, 120, 240, 480, 960, 1800, 1800] {
        assert_eq!(schedule.next_wakeup(), Some(at(now + wait)));
        now += wait;
        assert_eq!(schedule.advance(at(now)).0, [Call::Dispatcher]);
        assert_eq!(schedule.opening(), Some(a));
        assert_eq!(schedule.opening(), None, "one probe");
        assert!(matches!(schedule.take(a, true), Take::Entry { .. }));
        schedule.unreachable(a, down(), at(now), IN_THE_MIDDLE);
        schedule.leave(a);
    }
    schedule.advance(at(now + 1800));
    assert_eq!(schedule.opening(), Some(a));
    schedule.take(a, true);
    assert_eq!(schedule.reached(a), Some(Call::Dispatcher), "it bears more again");
    assert_eq!(schedule.dead_reply(&site("a")), None);
    assert_eq!((0..10).filter_map(|_| schedule.opening()).count(), 4);
}

#[test]
fn flush_tries_everything_at_once_even_what_was_left_alone() {
    let mut schedule = schedule();
    schedule.enter(id(1), &site("a"), at(300), at(0));
    schedule.enter(id(2), &site("b"), at(300), at(0));
    schedule.enter_fresh(id(3), &site("b"), at(0));
    let b = schedule.opening().expect("an opening");
    schedule.take(b, true);
    for _ in 0..3 {
        schedule.unreachable(b, down(), at(0), IN_THE_MIDDLE);
    }
    schedule.leave(b);
    schedule.flush(|id| id.as_u64() == 2);
    assert_eq!(schedule.opening(), Some(b));
    assert_eq!(schedule.take(b, true), Take::Entry { id: id(2), forced: true });
    assert_eq!(schedule.next_wakeup(), Some(at(300)));
}

#[test]
fn what_is_forgotten_is_not_delivered() {
    let mut schedule = schedule();
    schedule.enter(id(1), &site("a"), at(300), at(0));
    schedule.enter(id(2), &site("b"), at(0), at(0));
    schedule.enter_fresh(id(3), &site("b"), at(0));
    schedule.deadline(id(1), at(20));
    schedule.forget(|id| id.as_u64() != 3);
    assert_eq!(schedule.next_wakeup(), None);
    let b = schedule.opening().expect("an opening");
    assert_eq!((schedule.take(b, true), schedule.take(b, false)), (entry(3), Take::Idle));
    assert_eq!(schedule.summaries().len(), 1);
}

#[test]
fn the_rest_of_a_large_message_is_next() {
    let mut schedule = schedule();
    schedule.enter_fresh(id(1), &site("a"), at(0));
    schedule.enter_fresh(id(2), &site("a"), at(0));
    let a = schedule.opening().expect("an opening");
    assert_eq!(schedule.take(a, true), entry(1));
    schedule.put_back(id(1), a, false);
    assert_eq!((schedule.take(a, false), schedule.take(a, false)), (entry(1), entry(2)));
}

#[test]
fn one_dead_destination_among_many_under_a_long_random_run() {
    // Whatever comes, every entry is taken in the end, exactly as often as it was entered, and counts stay sane.
    let mut random = fastrand::Rng::with_seed(7);
    let mut schedule = schedule();
    let names: Vec<Destination> = (0..8).map(|n| site(&format!("d{n}"))).collect();
    let mut now = 0;
    let mut workers: Vec<(Site, bool)> = Vec::new();
    let (mut entered, mut done) = (0u64, 0u64);
    for step in 0..200_000u64 {
        let more = step < 100_000;
        match random.u32(0..6) {
            0 if more => {
                entered += 1;
                schedule.enter_fresh(id(step), random.choice(&names).expect("some"), at(now));
            }
            1 if more => {
                entered += 1;
                schedule.enter(id(step), random.choice(&names).expect("some"), at(now + random.u64(0..50)), at(now));
            }
            2 => {
                now += random.u64(0..if more { 3 } else { 100 });
                schedule.advance(at(now));
            }
            3 => workers.extend(schedule.opening().map(|site| (site, true))),
            _ => {
                let Some(index) = (!workers.is_empty()).then(|| random.usize(..workers.len())) else { continue };
                let (site, called) = workers[index];
                match schedule.take(site, called) {
                    Take::Entry { .. } => {
                        workers[index].1 = false;
                        let sick = schedule.destination(site) == Some(&names[0]);
                        if sick && more {
                            entered += 1;
                            let again = at(now + 10);
                            schedule.enter(id(step), &names[0], again, at(now));
                            schedule.unreachable(site, down(), at(now), random.f64());
                        } else {
                            schedule.reached(site);
                        }
                        done += 1;
                    }
                    Take::Idle if random.bool() && schedule.retire(site) => {
                        workers.swap_remove(index);
                        schedule.leave(site);
                    }
                    // As if it had been called: a worker may always look.
                    Take::Idle => {
                        workers[index].1 = !schedule.retire(site) || {
                            workers.swap_remove(index);
                            schedule.leave(site);
                            continue;
                        }
                    }
                    Take::Leave => {
                        workers.swap_remove(index);
                        schedule.leave(site);
                    }
                }
            }
        }
    }
    assert_eq!(entered, done);
    assert!(schedule.summaries().iter().all(|site| site.ready == 0 && site.waiting == 0));
}
