//! A call of the script for many requests, of which one record cannot be written: who is told what.

use redis::Value;

use crate::bench::RedisServer;
use crate::lua_batch::{script, told};

/// What is refused of the record `full`, and whether the second charge is enforced.
const HSET: (&str, bool) = ("HSET", true);
const PEXPIREAT: (&str, bool) = ("PEXPIREAT", true);
const HSET_OBSERVED: (&str, bool) = ("HSET", false);

/// What requests of one group are told where that is refused, whether they are admitted or the code of the error, and which
/// records are written. The second bucket holds one token only.
fn told_where_one_is_refused<const N: usize>(
    redis: &RedisServer,
    (refused, is_enforced): (&str, bool),
    requests: &[[&str; 2]; N],
    repeated: &[usize],
) -> ([Result<bool, String>; N], String) {
    let refusing = r#"
        local server = redis
        local redis = setmetatable({}, { __index = server })
        function redis.pcall(command, ...)
          if command == 'REFUSED' and ... == 'full' then return { err = 'OOM no room' } end
          return server.pcall(command, ...)
        end
    "#;
    redis.run::<()>(&["FLUSHALL"]);
    let script = script(&refusing.replace("REFUSED", refused));
    let mut call = script.prepare_invoke();
    for key in requests.as_flattened() {
        call.key(*key);
    }
    call.arg("charge").arg(N).arg(2);
    call.arg(repeated.len()).arg(repeated);
    for (capacity, is_enforced) in [(9, true), (1, is_enforced)] {
        call.arg("tokenbucket").arg(u8::from(is_enforced)).arg(1);
        call.arg(capacity).arg(1).arg(1_000_000_000_u64);
    }
    let reply: Vec<Value> = call.invoke(&mut redis.connection()).unwrap();
    let told = told(&reply[2..], [2; N].into_iter()).into_iter();
    let is_admitted = |told: Vec<[u64; 4]>| told.iter().all(|charge| charge[0] == 0);
    let told: Vec<_> = told.map(|told| told.map(is_admitted)).collect();
    let mut written: Vec<String> = redis.run(&["KEYS", "*"]);
    written.sort_unstable();
    (told.try_into().unwrap(), written.concat())
}

#[test]
fn a_record_that_cannot_be_written_is_told_to_those_who_were_to_change_it() {
    let redis = RedisServer::start();
    let [partly, oom] = ["PARTLY", "OOM"].map(|code| Err(code.to_owned()));
    let requests = [
        ["a", "full"],
        ["b", "c"],
        ["d", "full"],
        ["a", "full"],
        ["e", "c"],
    ];
    let (told, written) = told_where_one_is_refused(&redis, HSET, &requests, &[1, 2, 4]);
    // The third changed nothing and heard of nothing that was written; the fourth did, of the first key.
    let expected = [partly.clone(), Ok(true), oom.clone(), Ok(false), Ok(false)];
    assert_eq!((told, &*written), (expected, "abc"));

    // The same where each is written at once: whoever is refused has changed nothing, and so it is for the next.
    let (told, written) = told_where_one_is_refused(&redis, HSET, &requests, &[]);
    let expected = [oom.clone(), Ok(true), oom.clone(), oom.clone(), Ok(false)];
    assert_eq!((told, &*written), (expected, "bc"));

    // The last is written first.
    let (told, written) = told_where_one_is_refused(&redis, HSET, &[["full", "a"]], &[]);
    assert_eq!((told, &*written), ([partly.clone()], "a"));
    // Written without an expiry; then nothing more is.
    let (told, written) = told_where_one_is_refused(&redis, PEXPIREAT, &[["a", "full"]], &[]);
    assert_eq!((told, &*written), ([partly.clone()], "full"));

    // One at once, another of which others have a part at the end.
    let requests = [["a", "full"], ["b", "full"]];
    let (told, written) = told_where_one_is_refused(&redis, HSET, &requests, &[2]);
    assert_eq!((told, &*written), ([partly.clone(), oom], "a"));
    let (told, written) = told_where_one_is_refused(&redis, HSET_OBSERVED, &requests, &[2]);
    assert_eq!((told, &*written), ([partly.clone(), partly.clone()], "ab"));
    // The one that is refused at once comes after another was changed for the end.
    let requests = [["full", "a"], ["b", "a"]];
    let (told, written) = told_where_one_is_refused(&redis, HSET, &requests, &[2]);
    assert_eq!((told, &*written), ([partly, Ok(false)], "a"));
}
