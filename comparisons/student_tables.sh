#!/bin/bash
# The tables of the semantic student, run by run: what is done is skipped, what was stopped resumes.
#
#   DATA=tfds IMAGES=tiny-imagenet-200.zip OUT=runs/student comparisons/student_tables.sh [TABLE ...]
#
#   main        FedAvg, the paper's terms, a visual head, the student, its controls; NID1 0.05
#   main_more   the same with NID1 0.2 and 0.5, and NID2
#   algorithms  the student with FedProx, SCAFFOLD, MOON, FedDyn, FedAdam; FedDifRC with oracle
#   parts       weights, targets in each step, dimensions, maps, diffusion times
#   heads       kl, l2 and cosine with and without the visual head, on class anchors and on oracle
#   protocol    the family's whole protocol, for a machine with an accelerator
#
# By default main alone. SEEDS=0,1,2 and PYTHON=.venv/bin/python may be set, and STUDENT, further
# settings of all students. Students are shared by all runs, in OUT/students, and made when they are
# first needed. Each table ends in OUT/TABLE-SETTING/comparison.md.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${DATA:?the data directory of CIFAR-10, as of --config.data_dir}"
: "${IMAGES:?TinyImageNet, on whose training images students are distilled}"
OUT=${OUT:-runs/student}
SEEDS=${SEEDS:-0,1,2}
PYTHON=${PYTHON:-.venv/bin/python}
STUDENT=${STUDENT:-}

# compare NAME METHODS [--config.FIELD=VALUE ...]
compare() {
    local name=$1 methods=$2
    shift 2
    echo "== $name"
    "$PYTHON" -m launch.compare --config=launch/configs/cifar10_cpu.py --workdir="$OUT/$name" \
        --config.data_dir="$DATA" --seeds="$SEEDS" --methods="$methods" "$@"
}

# The same, with students.
run() {
    # shellcheck disable=SC2086
    compare "$@" --config.guidance.student.images=dataset:tiny_imagenet \
        --config.guidance.student.data_dir="$IMAGES" \
        --config.guidance.student.directory="$OUT/students" $STUDENT
}

ALONE="guidance.lambda_kd=0 guidance.lambda_con=0 guidance.student.enabled=true"
S="semanticfl $ALONE"
MAIN="fedavg; $S; $S guidance.student.control=random_unet; $S guidance.student.control=permuted;
    $S guidance.student.control=start_only; $S guidance.student.control=target_only;
    $S guidance.student.control=labels; $S guidance.student.control=encoder;
    $S guidance.student.control=encoder guidance.student.weight=0; $S guidance.student.weight=25;
    semanticfl guidance.lambda_con=0.01 guidance.visual_head=none;
    semanticfl guidance.lambda_con=0.01; semanticfl;
    semanticfl guidance.student.enabled=true"

main() { run main-nid1-0.05 "$MAIN" --config.partition.alpha=0.05; }

main_more() {
    run main-nid1-0.2 "$MAIN" --config.partition.alpha=0.2
    run main-nid1-0.5 "$MAIN" --config.partition.alpha=0.5
    run main-nid2 "$MAIN" --config.partition.scheme=nid2
}

algorithms() {
    local methods="" name
    for name in fedavg fedprox scaffold moon feddyn fedadam; do
        methods+="$name; $name guidance.enabled=true $ALONE; "
    done
    run algorithms "$methods feddifrc guidance.anchor_source=oracle"
}

parts() {
    local field=guidance.student methods="fedavg; $S" value
    for value in 1 25; do methods+="; $S $field.weight=$value"; done
    for value in 64 256; do methods+="; $S $field.dim=$value"; done
    methods+="; $S $field.targets=each_step"
    run parts "$methods"
    # One map, which has fewer dimensions than all together, and the latent alone.
    run parts-maps "$S $field.maps=up_0 $field.dim=64; $S $field.maps=mid $field.dim=64;
        $S $field.maps=vae $field.dim=4; $S $field.dim=64"
    run parts-times "$S; $S guidance.timestep=50; $S guidance.timestep=300"
}

heads() {
    local source kind head methods="fedavg"
    for source in public oracle; do
        for kind in kl l2 cosine; do
            for head in linear none; do
                methods+="; semanticfl guidance.lambda_con=0 guidance.anchor_source=$source"
                methods+=" guidance.kd=$kind guidance.visual_head=$head"
                if [ $kind = kl ]; then methods+=" guidance.temperature_kd=0.05"; fi
            done
        done
    done
    compare heads "$methods"
}

protocol() {
    run protocol "fedavg; semanticfl guidance.lambda_con=0.01 guidance.visual_head=none; $S" \
        --config.train_limit=0 --config.model.width=64 --config.local_epochs=10 \
        --config.batch_size=64 --config.learning_rate=0.01 --config.rounds=50 \
        --config.weight_decay=1e-5 --config.optimizer.schedule=constant
}

for table in "${@:-main}"; do "$table"; done
