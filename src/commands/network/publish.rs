//! `notary network publish`: the worker's own node info, once, without running the worker.

use clap::Args;
use serde_json::json;

use super::super::{ConfigSource, Exit, Failure};
use crate::worker;

#[derive(Args, Debug)]
pub(crate) struct PublishArguments {
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: ConfigSource,
}

pub(super) fn run(arguments: &PublishArguments) -> Result<Exit, Failure> {
    let settings = arguments.source.load()?.settings;
    let runtime = worker::runtime(settings.worker.threads).map_err(Failure::unavailable)?;
    let published = runtime.block_on(worker::publish(&settings, runtime.handle()))?;
    let (node, files) = (&published.node, published.files.iter().map(|file| file.display().to_string()));
    if arguments.json {
        let document = json!({
            "name": node.own().name.to_string(),
            "serial": node.serial,
            "hash": node.hash.to_string(),
            "new": published.is_new,
            "files": files.collect::<Vec<_>>(),
            "map": published.map,
        });
        println!("{document}");
        return Ok(Exit::Done);
    }
    match published.is_new {
        true => println!("signed the node info of {}, serial {}", node.own().name, node.serial),
        false => println!("the node info of {} says all there is to say, serial {}", node.own().name, node.serial),
    }
    files.for_each(|file| println!("  {file}"));
    if let Some(map) = &published.map {
        println!("  taken by {map}; it lists the node info when it next makes a map");
    }
    Ok(Exit::Done)
}
