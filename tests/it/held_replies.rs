//! The race that `hash` has and the others have not, without chance: both replies are held until both have read.

use tollgate::algorithm::named;
use tollgate::strategy::factory::Kind;

use crate::bench::{Proxy, RedisServer, charge, quota, stack};

/// Two instances ask for the last token; each gets its first reply only after the other's read reached Redis. How many
/// were admitted?
async fn admitted_of_two(kind: Kind) -> usize {
    let redis = RedisServer::start();
    let token_bucket = named("tokenbucket").unwrap();
    let proxy = Proxy::before(&redis.address()).await;
    let stacks = [stack(kind, proxy.address()), stack(kind, proxy.address())];
    for (i, stack) in stacks.iter().enumerate() {
        let warm_up = [charge(token_bucket, &format!("warm-up-{i}"), quota(1), 1)];
        assert!(stack.strategy.decide(&warm_up).await.unwrap().admitted);
    }
    let last = [charge(token_bucket, "contended", quota(1), 1)];
    proxy.hold_replies();
    let both = async {
        tokio::join!(
            stacks[0].strategy.decide(&last),
            stacks[1].strategy.decide(&last)
        )
    };
    let release = async {
        proxy.until_held(2).await;
        proxy.release_replies();
    };
    let ((a, b), ()) = tokio::join!(both, release);
    usize::from(a.unwrap().admitted) + usize::from(b.unwrap().admitted)
}

#[tokio::test]
async fn hash_admits_two_to_one_token() {
    assert_eq!(admitted_of_two(Kind::Hash).await, 2);
}

#[tokio::test]
async fn transaction_admits_one_to_one_token() {
    assert_eq!(admitted_of_two(Kind::Transaction).await, 1);
}

#[tokio::test]
async fn lua_admits_one_to_one_token() {
    assert_eq!(admitted_of_two(Kind::Lua).await, 1);
}
