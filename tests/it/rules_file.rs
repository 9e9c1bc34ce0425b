//! Rules files: what is wrong with the broken ones, and what the good ones mean.

use std::fs;

use crate::bench::{Folder, Instance};

#[tokio::test]
async fn a_rules_file_is_in_force() {
    let folder = Folder::new();
    let path = format!("{}/rules.yaml", folder.path());
    let rules = "lists:\n  banned: {file: banned.txt}\nrules:\n\
                 - {name: bans, match: {client: 'list:banned'}, deny: true}\n\
                 - {name: api, match: {path: /api}, limit: 2/hour}\n";
    fs::write(&path, rules).unwrap();
    fs::write(
        format!("{}/banned.txt", folder.path()),
        "203.0.113.0/24 # who did not stop\n",
    )
    .unwrap();
    let instance = Instance::start(&[("RULES_FILE", &path), ("TRUSTED_PROXIES", "loopback")]).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(instance.get("/api").await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);
    let banned = instance
        .get_with("/api", &[("x-forwarded-for", "203.0.113.9")])
        .await;
    assert_eq!(banned.status().as_u16(), 403);
    instance.stop().await;
}
