//! What is compared with what.

use tollgate::strategy::factory::Kind;

use crate::peers::Peers;
use crate::subject::{Contender, Quota, Subject};

/// Clients where there are many.
const MANY: u32 = 10_000;
/// Clients that are few, but each asks often.
const HOT: u32 = 16;
/// Numbers of keys by which the cost is compared; quick runs leave the last one out.
const KEYS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Numbers of limits a request.
const CHARGES: [usize; 4] = [1, 2, 4, 8];

/// Contenders that are measured in turn, round by round.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) subjects: Vec<Subject>,
    /// Whether nearly every answer must be a denial; else none may be.
    pub(crate) denies: bool,
    /// Whether it shows how the cost grows, in fewer rounds.
    pub(crate) is_sweep: bool,
}

impl Scenario {
    /// What a subject is compared with: itself with the fewest keys where those are varied, else whoever stands first with
    /// as many instances.
    pub(crate) fn base(&self, i: usize) -> usize {
        let subject = &self.subjects[i];
        let is_base = |base: &Subject| {
            base.instances == subject.instances
                && (subject.store.is_none() || base.contender == subject.contender)
        };
        self.subjects.iter().position(is_base).unwrap_or(i)
    }

    /// Those that are compared with another.
    pub(crate) fn compared(&self) -> impl Iterator<Item = usize> {
        (0..self.subjects.len()).filter(|&i| self.base(i) != i)
    }
}

/// Every scenario, with the peers that were found.
pub(crate) fn all(peers: &Peers, quick: bool) -> Vec<Scenario> {
    let scenario = |name, about, subjects| Scenario {
        name,
        about,
        subjects,
        denies: false,
        is_sweep: false,
    };
    let everybody = |bare, quota, clients| {
        let own = Kind::ALL.map(Contender::Own);
        let built_in = ["pooled-evalsha", "tower-governor"].map(Contender::Served);
        let contenders = [Contender::Served(bare)].into_iter();
        let contenders = contenders
            .chain(own)
            .chain(built_in)
            .chain(peers.contenders());
        contenders
            .map(|contender| Subject::new(contender, quota, clients))
            .collect::<Vec<_>>()
    };
    let before = |contender, instances, quota, clients| Subject {
        instances,
        balanced: true,
        ..Subject::new(contender, quota, clients)
    };
    let bare = || Contender::Served("bare");
    let mut scenarios = vec![
        scenario(
            "clients",
            "10,000 clients, all admitted",
            everybody("bare", Quota::Ample, MANY),
        ),
        scenario(
            "hot",
            "one client, all admitted",
            everybody("bare", Quota::AmpleForOne, 1),
        ),
        Scenario {
            denies: true,
            ..scenario(
                "denied",
                "one client far over its limit",
                everybody("bare-429", Quota::Tight, 1)
                    .into_iter()
                    .filter(|subject| subject.contender.is_limited())
                    .collect(),
            )
        },
    ];
    if peers.nginx {
        let shared = || Kind::ALL.into_iter().filter(|kind| kind.needs_redis());
        let contenders = || [bare()].into_iter().chain(shared().map(Contender::Own));
        scenarios.push(scenario(
            "balanced",
            "10,000 clients, three instances behind nginx",
            contenders()
                .map(|contender| before(contender, 3, Quota::Ample, MANY))
                .collect(),
        ));
        scenarios.push(scenario(
            "balanced-hot",
            "16 hot clients, three instances behind nginx",
            contenders()
                .map(|contender| before(contender, 3, Quota::AmpleForOne, HOT))
                .collect(),
        ));
    }
    let charged = [Kind::Memory, Kind::Lua]
        .into_iter()
        .flat_map(|kind| CHARGES.map(|count| Contender::Charges(kind, count)))
        .chain([Contender::Charges(Kind::Transaction, 4)]);
    scenarios.push(Scenario {
        is_sweep: true,
        ..scenario(
            "charges",
            "1 to 8 limits a request, 10,000 clients",
            [bare()]
                .into_iter()
                .chain(charged)
                .map(|contender| Subject::new(contender, Quota::Ample, MANY))
                .collect(),
        )
    });
    if peers.nginx {
        let contenders = [bare(), Contender::Own(Kind::Lua)];
        scenarios.push(Scenario {
            is_sweep: true,
            ..scenario(
                "instances",
                "1 to 4 instances behind nginx, 10,000 clients",
                (1..=4)
                    .flat_map(|count| {
                        contenders
                            .clone()
                            .map(|it| before(it, count, Quota::Ample, MANY))
                    })
                    .collect(),
            )
        });
    }
    let sizes = &KEYS[..KEYS.len() - usize::from(quick)];
    scenarios.push(Scenario {
        is_sweep: true,
        ..scenario(
            "keys",
            "1,000 to 1,000,000 keys in the store",
            sizes.iter().flat_map(|&keys| sized(keys)).collect(),
        )
    });
    scenarios
}

/// Every strategy on a store of so many keys. Those in Redis share one, which `lua` fills.
fn sized(keys: u32) -> Vec<Subject> {
    let subject = |kind| Subject {
        store: Some(keys),
        filled: matches!(kind, Kind::Lua | Kind::Memory),
        ..Subject::new(Contender::Own(kind), Quota::Ample, keys)
    };
    Kind::ALL.map(subject).into()
}
