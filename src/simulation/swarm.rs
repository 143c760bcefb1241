//! ```text
//!   seed  ->  a trial: how many nodes, how small, which clocks, which weather, which faults when
//! ```
//! Swarm testing (Groce et al., 2012): each seed picks its own sizes and its own few kinds of faults, so that rare
//! combinations come up, and no kind drowns the others.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::oracle::Violation;
use super::world::{Counts, Fault, Operation, World};
use crate::config::{Config, Quorum};
use crate::error::Error;
use crate::ids::{NODES_MAX, NodeId};
use crate::runtime::simulated::{Chance, Weather};

/// What a caller fixes; the seed picks the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Nodes, 1 to 16.
    pub nodes: Option<u8>,
    /// Copies of each entry, 1 to the nodes.
    pub replicas: Option<u8>,
}

/// All that a seed decides.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The seed itself.
    pub seed: u64,
    /// The cluster.
    pub config: Config,
    /// The network.
    pub weather: Weather,
    /// Between two rounds of a node, in microseconds.
    pub gossip_us: u64,
    /// Between two calls of clients, in microseconds, at most.
    pub call_us_max: u64,
    /// When calls and faults end.
    pub ends_us: u64,
    /// How many keys there are, and how long they are.
    pub keys: u64,
    key_bytes: usize,
    value_bytes_max: usize,
    reads_permille: u64,
    removes_permille: u64,
    times: Times,
    /// Bytes in one answer to a pull, when they are fewer than usual.
    pub chunk_bytes: Option<usize>,
    /// How values end, if they do.
    pub ttls: Option<Ttls>,
    /// When the clocks beside nodes are set, and to what.
    pub jumps: Vec<Jump>,
    /// What happens when.
    pub faults: Vec<(u64, Fault)>,
    /// These nodes stay broken to the end.
    pub broken: u128,
    /// Nothing fails: nodes come and go as planned, many at a time.
    pub is_planned: bool,
    /// So many keys are there from the beginning; 0 but for a few seeds.
    pub filled: u64,
    /// Keys share hashes, two and two.
    pub keys_share_hashes: bool,
    /// Once it is true the execution ends soon, and its result is no more than that it ended.
    pub is_over: Arc<AtomicBool>,
}

/// The clock beside a node is set, back or forth: nodes beside it measure ends by it, and clients take timestamps from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// When.
    at_us: u64,
    /// Which node's.
    node: NodeId,
    /// How far ahead of the slowest clock it is from then on: so many thousandths of what clocks differ by at most.
    ahead_permille: u64,
}

/// The clocks of clients are off by so much at most, in units of timestamps.
const SKEW_MAX: u64 = 40;

/// How values end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttls {
    /// So many puts of a thousand have a time to live.
    puts_permille: u64,
    /// So many reads of a thousand are touches.
    touches_permille: u64,
    /// So many puts of a thousand are of one and the same value: then the end is all that tells them apart.
    same_permille: u64,
    /// Up to so many milliseconds; some live a hundred times as long, and some for ever.
    ms_max: u64,
    /// By how much the clock beside each node is ahead, in milliseconds.
    skews_ms: Vec<u64>,
}

impl Ttls {
    fn new(chance: &mut Chance) -> Self {
        let (puts_permille, touches_permille) = (100 + chance.below(900), chance.below(600));
        let ms_max = [20, 300, 3_000][chance.below(3) as usize];
        let skew_ms = [1, 50, 2_000][chance.below(3) as usize];
        let skews_ms = (0..NODES_MAX).map(|_| chance.below(skew_ms)).collect();
        Self { puts_permille, touches_permille, same_permille: chance.below(700), ms_max, skews_ms }
    }

    fn ttl(&self, chance: &mut Chance) -> Option<Duration> {
        let ms = 1 + chance.below(self.ms_max);
        match chance.below(10) {
            0 => None,
            1 | 2 => Some(Duration::from_millis(ms * 100)),
            _ => Some(Duration::from_millis(ms)),
        }
    }
}

/// How users give timestamps.
#[derive(Clone, Copy, Debug)]
enum Times {
    /// Every write has a higher one.
    Rising,
    /// A few numbers, again and again: ties and late writes.
    Few,
    /// Rising, and out of order by a little.
    Nearly,
    /// Rising, and each client's clock is off by its own.
    Skewed,
}

/// Keys are taken from here: 64 names, short and long.
fn key_of(number: u64, bytes: usize) -> &'static [u8] {
    static KEYS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let name = |length: usize, number: usize| format!("{:k>length$}{number:02}", "").into_bytes();
        LENGTHS.iter().flat_map(|&length| (0..64).map(move |number| name(length, number))).collect()
    });
    let length = LENGTHS.iter().position(|&length| length >= bytes).unwrap_or(LENGTHS.len() - 1);
    &keys[length * 64 + (number % 64) as usize]
}

const LENGTHS: [usize; 3] = [1, 200, 600];

/// Keys that have one hash, two and two: 2^34 hashes have about so many such pairs. What takes a hash for a key loses one of two.
pub const KEYS_OF_ONE_HASH: [[&[u8; 16]; 2]; 13] = [
    [b"acbjdickfeccbcid", b"fidllindebemlcmb"],
    [b"bkidpebhnplogpcc", b"jdadkjmllklajbel"],
    [b"mccebcpikfkklhdf", b"knohakopcofbmhlo"],
    [b"dhceefmncokgjifd", b"mifbpnmlggllblij"],
    [b"haehegglnegijehn", b"ilcaheommmokbmno"],
    [b"alackmkepldmgida", b"deeplgcdlpilkhnf"],
    [b"dmpalbbmjeegmckk", b"gpjmokdjjgidpmkn"],
    [b"bcbhdhnkjmbhdmbc", b"bdkfaanajnjcfchm"],
    [b"ogdbmhefjaoeefog", b"leomjjkehahhppcd"],
    [b"eeidnncgcepdhdel", b"anmpfgfagkcagapl"],
    [b"pcmelndikkknhiai", b"fccahgdbiffkdjfe"],
    [b"fdpcjpglcabnpidm", b"bchlfkickgppppcc"],
    [b"jidahpcdfemohfdf", b"blodlpchnanindel"],
];

/// Values are slices of one text without repetition.
fn value_of(number: u64, bytes: usize) -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    let text =
        TEXT.get_or_init(|| (0..(1_u64 << 14)).flat_map(|word| Chance::new(word).bits().to_le_bytes()).collect());
    let from = (number as usize * 8) % (text.len() - bytes);
    &text[from..from + bytes]
}

/// What a seed decides, within what the caller fixed.
///
/// # Errors
/// [`Error::Invalid`] when nodes or replicas are out of range.
pub fn trial(seed: u64, options: Options) -> Result<Trial, Error> {
    let mut chance = Chance::new(seed ^ 0x5EED);
    let nodes = options.nodes.unwrap_or_else(|| 2 + chance.below(5) as u8).max(options.replicas.unwrap_or(1));
    let replicas = options.replicas.unwrap_or_else(|| 1 + chance.below(3.min(u64::from(nodes))) as u8);
    let roomy = chance.permille(350);
    let node_bytes = if roomy { 64 * 1024 } else { 16 * 1024 };
    let quorum = |chance: &mut Chance| match chance.below(6) {
        0 => Quorum::One,
        1 => Quorum::Majority,
        _ => Quorum::All,
    };
    let reads = if chance.permille(700) { Quorum::One } else { Quorum::Majority };
    let config = Config::new(usize::from(nodes), Some(usize::from(replicas)))?
        .node_bytes(node_bytes)?
        .write_quorum(quorum(&mut chance))?
        .read_quorum(reads)?;
    let calm = chance.permille(150);
    let weather = Weather {
        delay_us_max: 100 + chance.below(300_000),
        lost_permille: if calm { 0 } else { chance.below(250) },
        twice_permille: if calm { 0 } else { chance.below(150) },
        late_permille: if calm { 0 } else { chance.below(30) },
    };
    let ends_us = 4_000_000 + chance.below(8_000_000);
    let times = [Times::Rising, Times::Few, Times::Nearly, Times::Skewed][chance.below(4) as usize];
    let keys = 2 + chance.below(if roomy { 14 } else { 24 });
    let mut chunks = Chance::new(seed ^ 0xC5A4);
    let mut endings = Chance::new(seed ^ 0xE4D5);
    let mut trial = Trial {
        seed,
        config,
        weather,
        gossip_us: 100_000 + chance.below(400_000),
        call_us_max: 10_000 + chance.below(90_000),
        ends_us,
        keys,
        key_bytes: if roomy { 1 } else { LENGTHS[chance.below(3) as usize] },
        value_bytes_max: if roomy { 60 } else { 100 + chance.below(5_000) as usize },
        reads_permille: 200 + chance.below(500),
        removes_permille: chance.below(400),
        times,
        chunk_bytes: chunks.permille(500).then(|| chunks.below(4_000) as usize),
        ttls: endings.permille(500).then(|| Ttls::new(&mut endings)),
        jumps: Vec::new(),
        faults: Vec::new(),
        broken: 0,
        is_planned: false,
        filled: 0,
        keys_share_hashes: false,
        is_over: Arc::default(),
    };
    trial.faults = faults(&mut chance, nodes, replicas, node_bytes, ends_us);
    if chance.permille(200) {
        trial.broken = u128::from(chance.bits()) & !1;
    }
    // Where no node ever comes or goes, what the network does has to be made good without that occasion. (The constant
    // leaves every seed that once found something as it was.)
    if Chance::new(seed ^ 0x256F).permille(125) {
        trial.faults.retain(|(_, fault)| fault.is_of_network());
        trial.broken = 0;
    }
    // (This constant does so, too.)
    let mut clocks = Chance::new(seed ^ 0x259A);
    if clocks.permille(125) {
        trial.jumps = jumps(&mut clocks, nodes, ends_us);
    }
    // A chance of its own, too, and a constant that leaves those seeds as they were.
    let mut plan = Chance::new(seed ^ PLANS);
    if plan.permille(125) {
        make_planned(&mut trial, &mut plan, options)?;
    }
    let mut files = Chance::new(seed ^ FILES);
    if files.permille(60) {
        add_snapshots(&mut trial, &mut files);
    }
    trial.keys_share_hashes = Chance::new(seed ^ SHARED).permille(60);
    // And these have more to know than fits, or nearly.
    let mut crowd = Chance::new(seed ^ CROWDS);
    if seed % LARGE_EVERY == LARGE_EVERY - 1 {
        make_large(&mut trial, options)?;
    } else if crowd.permille(3) && options == Options::default() {
        if crowd.permille(250) {
            make_crowded(&mut trial, &mut crowd)?;
        } else {
            make_haunted(&mut trial, &mut crowd)?;
        }
    }
    // There may be fewer nodes than at first.
    let nodes = trial.config.nodes();
    trial.jumps.retain(|jump| jump.node < nodes);
    Ok(trial)
}

/// Which seeds save and restore, and in which keys share hashes: these, too, leave what once found something as it was.
const FILES: u64 = 0x1091;
const SHARED: u64 = 0x10CB;

/// One seed of so many is large.
const LARGE_EVERY: u64 = 20_000;

/// So many keys a large node holds.
const LARGE_KEYS: u64 = 100_000;

/// Snapshots are saved, and each is restored a while later.
fn add_snapshots(trial: &mut Trial, chance: &mut Chance) {
    for _ in 0..1 + chance.below(3) {
        let at_us = chance.below(trial.ends_us);
        let events = chance.below(30) as u32;
        trial.faults.push((at_us, Fault::Save { events }));
        trial.faults.push((at_us + chance.below(3_000_000), Fault::Restore { events }));
    }
}

/// Few nodes that hold very many keys, with room for all, and a short day.
fn make_large(trial: &mut Trial, options: Options) -> Result<(), Error> {
    let mut chance = Chance::new(trial.seed ^ 0x1A46E);
    let nodes = options.nodes.unwrap_or_else(|| 2 + chance.below(2) as u8).max(options.replicas.unwrap_or(1));
    let replicas = options.replicas.unwrap_or_else(|| 1 + chance.below(2) as u8);
    let node_bytes = 32 << 20;
    trial.config = Config::new(usize::from(nodes), Some(usize::from(replicas)))?.node_bytes(node_bytes)?;
    trial.ends_us = 3_000_000;
    (trial.filled, trial.value_bytes_max) = (LARGE_KEYS * u64::from(nodes) / u64::from(replicas), 60);
    (trial.keys, trial.keys_share_hashes) = (trial.filled + 100, false);
    (trial.is_planned, trial.chunk_bytes) = (false, trial.chunk_bytes.map(|bytes| bytes + 1_000));
    trial.faults = faults(&mut chance, nodes, replicas, node_bytes, trial.ends_us);
    trial.faults.push((chance.below(trial.ends_us), Fault::Save { events: 20 }));
    Ok(())
}

/// Which seeds are of crowds.
const CROWDS: u64 = 0x4A68;

/// Up to 100 small nodes with up to as many copies, and a few timestamps; nodes crash, and are cut off.
fn make_crowded(trial: &mut Trial, chance: &mut Chance) -> Result<(), Error> {
    let nodes = 10 + chance.below(91);
    let replicas = 1 + if chance.permille(300) { nodes - 1 } else { chance.below(nodes) };
    make_small(trial, chance, nodes, replicas)?;
    trial.ends_us = 600_000 + chance.below(1_200_000);
    trial.gossip_us = 200_000 + chance.below(300_000);
    let pause_us = 20_000 + chance.below(200_000);
    let mut at = 0;
    loop {
        at += chance.below(2 * pause_us);
        if at >= trial.ends_us {
            return Ok(());
        }
        let (node, back_us) = (chance.below(nodes) as NodeId, chance.below(300_000));
        let fault = match chance.below(4) {
            0 => Fault::Suspect { node },
            1 => Fault::Cut { sides: u128::from(chance.bits()) << 64 | u128::from(chance.bits()) },
            _ => Fault::Crash { node, noticed_us: chance.below(50_000) },
        };
        let end = if matches!(fault, Fault::Cut { .. }) { Fault::Heal } else { Fault::Recover { node } };
        trial.faults.push((at, fault));
        trial.faults.push((at + back_us, end));
    }
}

/// A few small nodes: one is away for long, noticed or not, and another crashes and comes back again and again.
fn make_haunted(trial: &mut Trial, chance: &mut Chance) -> Result<(), Error> {
    let nodes = 3 + chance.below(2);
    let replicas = if chance.permille(850) { nodes } else { 2 + chance.below(nodes - 1) };
    make_small(trial, chance, nodes, replicas)?;
    // Each life is to name something in each partition.
    (trial.ends_us, trial.gossip_us) = (8_000_000 + chance.below(4_000_000), 4_000 + chance.below(8_000));
    (trial.call_us_max, trial.reads_permille) = (1_000 + chance.below(2_000), 100);
    trial.weather.delay_us_max = 100 + chance.below(3_000);
    let away = chance.below(nodes) as NodeId;
    let (gone, back) = match chance.below(3) {
        0 => (Fault::Suspect { node: away }, Fault::Recover { node: away }),
        1 => (Fault::Cut { sides: 1 << away }, Fault::Heal),
        _ => (Fault::Split { sides: 1 << away }, Fault::Unblock),
    };
    trial.faults.push((chance.below(300_000), gone));
    trial.faults.push((trial.ends_us - chance.below(trial.ends_us / 2), back));
    let pause_us = 15_000 + chance.below(30_000);
    let haunted = (away + 1) % nodes as NodeId;
    let mut at = 300_000;
    while at < trial.ends_us {
        at += pause_us / 2 + chance.below(pause_us);
        let node = if chance.permille(995) { haunted } else { chance.below(nodes) as NodeId };
        trial.faults.push((at, Fault::Crash { node, noticed_us: chance.below(3_000) }));
        trial.faults.push((at + 3_000 + chance.below(3_000), Fault::Recover { node }));
    }
    Ok(())
}

/// Nodes of 16 KiB, small values and few timestamps, in a network that loses little. Faults are for the caller to plan.
fn make_small(trial: &mut Trial, chance: &mut Chance, nodes: u64, replicas: u64) -> Result<(), Error> {
    let config = Config::new(nodes as usize, Some(replicas as usize))?.node_bytes(16 * 1024)?;
    trial.config = config.write_quorum(if chance.permille(500) { Quorum::One } else { Quorum::All })?;
    let lost_permille = if chance.permille(500) { 0 } else { chance.below(50) };
    trial.weather = Weather { delay_us_max: 100 + chance.below(20_000), lost_permille, ..Weather::FINE };
    (trial.keys, trial.key_bytes, trial.value_bytes_max) = (20 + chance.below(44), 1, 60);
    trial.times = if chance.permille(700) { Times::Few } else { Times::Nearly };
    trial.call_us_max = 2_000 + chance.below(10_000);
    (trial.is_planned, trial.keys_share_hashes, trial.broken, trial.ttls) = (false, false, 0, None);
    (trial.jumps, trial.faults) = (Vec::new(), Vec::new());
    Ok(())
}

/// Clocks are set about once a second, in the order of time.
fn jumps(chance: &mut Chance, nodes: u8, ends_us: u64) -> Vec<Jump> {
    let mut at_us = 0;
    let next = || {
        at_us += 1 + chance.below(2_000_000);
        let (node, ahead_permille) = (chance.below(u64::from(nodes)) as NodeId, chance.below(1001));
        (at_us < ends_us).then_some(Jump { at_us, node, ahead_permille })
    };
    std::iter::from_fn(next).collect()
}

/// Which seeds are of plans.
const PLANS: u64 = 0x329C;

/// Nothing fails in this trial: nodes join and leave, several at a time, with room for everything, and mostly with one copy.
fn make_planned(trial: &mut Trial, chance: &mut Chance, options: Options) -> Result<(), Error> {
    let nodes = trial.config.nodes();
    let replicas = match options.replicas {
        None if chance.permille(600) => 1,
        _ => trial.config.replicas(),
    };
    let node_bytes = 64 * 1024;
    trial.config = Config::new(usize::from(nodes), Some(usize::from(replicas)))?.node_bytes(node_bytes)?;
    trial.weather = Weather { delay_us_max: 100 + chance.below(60_000), ..Weather::FINE };
    (trial.keys, trial.key_bytes, trial.value_bytes_max) = (2 + chance.below(14), 1, 60);
    (trial.is_planned, trial.broken) = (true, 0);
    let pause_us = 20_000 + chance.below(400_000);
    let (mut at, mut joined) = (0, nodes);
    trial.faults.clear();
    loop {
        at += chance.below(2 * pause_us);
        if at >= trial.ends_us {
            return Ok(());
        }
        let node = chance.below(u64::from(joined)) as NodeId;
        let back_us = chance.below(2_000_000);
        if chance.permille(500) {
            trial.faults.push((at, Fault::Join { bytes: node_bytes }));
            joined = (joined + 1).min(nodes + 3);
        } else if joined > replicas {
            trial.faults.push((at, Fault::Leave { node }));
            trial.faults.push((at + back_us, Fault::Dismiss { node }));
        }
    }
}

fn faults(chance: &mut Chance, nodes: u8, replicas: u8, node_bytes: u64, ends_us: u64) -> Vec<(u64, Fault)> {
    let kinds = chance.bits() | chance.bits();
    let pause_us = 100_000 + chance.below(2_000_000);
    let (mut at, mut all, mut joined) = (0, Vec::new(), nodes);
    loop {
        at += chance.below(2 * pause_us);
        if at >= ends_us {
            return all;
        }
        let kind = chance.below(10);
        let node = chance.below(u64::from(joined)) as NodeId;
        let other = chance.below(u64::from(joined)) as NodeId;
        let sides = u128::from(chance.bits());
        let noticed_us = chance.below(600_000);
        let back_us = chance.below(2_000_000);
        // As large as the others or twice that: alone it must hold the clocks of all that they held.
        let bytes = node_bytes << chance.below(2);
        if kinds >> kind & 1 == 0 {
            continue;
        }
        match kind {
            0 => all.push((at, Fault::Crash { node, noticed_us })),
            1 => {
                all.push((at, Fault::Crash { node, noticed_us }));
                all.push((at + back_us, Fault::Recover { node }));
            }
            2 => all.push((at, Fault::Recover { node })),
            3 => {
                all.push((at, Fault::Suspect { node }));
                all.push((at + back_us, Fault::Recover { node }));
            }
            4 => all.push((at, Fault::Block { from: node, to: other })),
            5 => all.push((at, Fault::Split { sides })),
            6 => all.push((at, Fault::Unblock)),
            7 => {
                all.push((at, Fault::Cut { sides }));
                all.push((at + back_us, Fault::Heal));
            }
            8 if joined < nodes + 3 => {
                all.push((at, Fault::Join { bytes }));
                joined += 1;
            }
            9 if joined > replicas => {
                all.push((at, Fault::Leave { node }));
                all.push((at + back_us, Fault::Dismiss { node }));
            }
            _ => {}
        }
    }
}

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, options: Options) -> Result<Counts, Violation> {
    run_until_over(seed, options, &Arc::default())
}

/// The same, unless it is over before: then what comes of it means nothing.
///
/// # Errors
/// The first promise that was broken.
pub fn run_until_over(seed: u64, options: Options, is_over: &Arc<AtomicBool>) -> Result<Counts, Violation> {
    match trial(seed, options) {
        Ok(trial) => run_with(&Trial { is_over: Arc::clone(is_over), ..trial }),
        Err(error) => Err(Violation { invariant: "options", at_us: 0, what: error.to_string() }),
    }
}

/// Runs a trial as it is: that of a seed, or one with fewer faults.
///
/// # Errors
/// The first promise that was broken.
pub fn run_with(trial: &Trial) -> Result<Counts, Violation> {
    // An assertion that fails in a node is a broken promise like any other.
    std::panic::catch_unwind(|| play(trial)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { invariant: "a panic", at_us: 0, what: what.unwrap_or_default() })
    })
}

fn play(trial: &Trial) -> Result<Counts, Violation> {
    let names: Vec<Vec<u8>> = match trial.filled {
        0 => Vec::new(),
        _ => (0..trial.keys).map(|number| format!("key {number}").into_bytes()).collect(),
    };
    let key_of = |number: u64| match names.get(number as usize) {
        Some(name) => name,
        None if trial.keys_share_hashes => {
            let pairs = &KEYS_OF_ONE_HASH[..];
            &pairs[number as usize / 2 % pairs.len()][number as usize % 2][..]
        }
        None => key_of(number, trial.key_bytes),
    };
    let mut world = World::new(trial.seed, trial.config.clone(), trial.weather, trial.gossip_us);
    world.chunk_bytes = trial.chunk_bytes;
    world.end_when(&trial.is_over);
    if trial.is_planned {
        world.expect_no_failure();
    }
    if let Some(ttls) = &trial.ttls {
        world.skew(ttls.skews_ms.clone());
        let most_ms = ttls.skews_ms.iter().copied().max().unwrap_or(0);
        for jump in &trial.jumps {
            world.set_clock(jump.at_us, jump.node, most_ms * jump.ahead_permille / 1000);
        }
    }
    if trial.filled > 0 {
        world.fill(
            (0..trial.filled).map(|number| (key_of(number), value_of(number, 8 + number as usize % 52), number % 6)),
        )?;
    }
    let mut jumps = trial.jumps.iter().peekable();
    let mut endings = Chance::new(trial.seed ^ 0x7713);
    for (at_us, fault) in &trial.faults {
        world.plan(*at_us, fault.clone());
    }
    let mut chance = Chance::new(trial.seed ^ 0xCA11);
    let nodes = u64::from(trial.config.nodes());
    let mut skew: Vec<u64> = (0..nodes).map(|_| chance.below(SKEW_MAX)).collect();
    let (mut at_us, mut number) = (0, 0);
    loop {
        at_us += 1 + chance.below(trial.call_us_max);
        if at_us >= trial.ends_us {
            break;
        }
        while let Some(jump) = jumps.next_if(|jump| jump.at_us <= at_us) {
            skew[usize::from(jump.node)] = SKEW_MAX * jump.ahead_permille / 1000;
        }
        number += 1;
        let home = chance.below(nodes) as NodeId;
        let key = key_of(chance.below(trial.keys));
        let timestamp = match trial.times {
            Times::Rising => number,
            Times::Few => chance.below(6),
            Times::Nearly => number / 3 + chance.below(12),
            Times::Skewed => number + skew[usize::from(home)],
        };
        let bytes = 8 + chance.below(trial.value_bytes_max as u64) as usize;
        let what = chance.below(1000);
        // They have a chance of their own, so that a seed is the same execution but for them.
        let is_touch = trial.ttls.as_ref().is_some_and(|ttls| endings.permille(ttls.touches_permille));
        let ends = trial.ttls.as_ref().is_some_and(|ttls| endings.permille(ttls.puts_permille));
        let ttl = trial.ttls.as_ref().and_then(|ttls| ttls.ttl(&mut endings));
        let is_same = trial.ttls.as_ref().is_some_and(|ttls| endings.permille(ttls.same_permille));
        let value = if is_same { value_of(0, 8) } else { value_of(number, bytes) };
        let operation = if what < trial.reads_permille && is_touch {
            Operation::Touch { key, ttl }
        } else if what < trial.reads_permille {
            Operation::Get { key }
        } else if chance.permille(trial.removes_permille) {
            Operation::Remove { key, timestamp }
        } else {
            Operation::Put { key, value, timestamp, ttl: ttl.filter(|_| ends) }
        };
        world.call(at_us, home, operation);
    }
    world.run_until(trial.ends_us);
    world.settle(|node| trial.broken >> node & 1 == 1)?;
    world.stay_silent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_set_beside_nodes_that_are_there() {
        // Large seeds have other nodes than they had at first.
        let large = (LARGE_EVERY - 1..100 * LARGE_EVERY).step_by(LARGE_EVERY as usize);
        for seed in large.chain(0..2000).chain([12_039_999]) {
            let trial = trial(seed, Options::default()).expect("valid");
            assert!(trial.jumps.iter().all(|jump| jump.node < trial.config.nodes()), "seed {seed}");
        }
    }
}
