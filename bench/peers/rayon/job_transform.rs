// job_transform: a tree of nodes, level by level, each from its parent; as b_job_transform.c.
mod bench;
use bench::*;
use rayon::prelude::*;
use std::time::Instant;

#[repr(align(64))]
#[derive(Clone, Default)]
struct Node {
    pos: [f32; 3],
    _rot: [f32; 4],
    _scale: [f32; 3],
}

const BATCH: usize = 64;

fn update(nodes: &mut [Node], depth: usize, branch: usize) {
    let (mut first, mut size) = (1, branch); // of the level
    let mut above = 0; // where the level above begins
    for _ in 1..depth {
        let (done, rest) = nodes.split_at_mut(first);
        let parents = &done[above..];
        rest[..size].par_iter_mut().enumerate().with_min_len(BATCH).for_each(|(i, node)| {
            node.pos[0] = parents[i / branch].pos[0] + 1.0;
        });
        (above, first, size) = (first, first + size, size * branch);
    }
}

fn measure(b: &Bench, depth: usize, branch: usize) -> f64 {
    let count = (0..depth).map(|level| branch.pow(level as u32)).sum();
    let want: usize = (0..depth).map(|level| level * branch.pow(level as u32)).sum();
    let times = b.count(2000);
    let mut nodes = vec![Node::default(); count];
    let start = Instant::now();
    for _ in 0..times {
        b.pool.install(|| update(&mut nodes, depth, branch));
    }
    let value = each(start, times) / 1e3;
    check("sum", nodes.iter().map(|node| node.pos[0] as usize).sum(), want);
    value
}

fn main() {
    let metrics = vec![Metric("", "us"), Metric("6x3", "us"), Metric("4x4", "us")];
    bench::main("job_transform", metrics, std::env::args().collect(), |b| {
        [(8, 2), (6, 3), (4, 4)].map(|(depth, branch)| measure(b, depth, branch)).to_vec()
    });
}
