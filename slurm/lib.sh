# shellcheck shell=bash
# What the job scripts share:  begin FOLDER;  step COMMAND...;  finish
#
# begin opens an attempt of the job, step runs `hpcscale COMMAND` in the image (once for each task of the job), finish
# says how the attempt ended and requeues the job where that helps. `hpcscale submit` copies this file into the scripts
# that it submits; by hand they read it from the folder they lie in. Facts of the site come in variables:
#
#   HPCSCALE_IMAGE         the image file; the only one that is needed
#   HPCSCALE_IMAGE_SHA256  its digest                                       [the one in HPCSCALE_IMAGE.json]
#   HPCSCALE_APPTAINER     the program                                      [apptainer]
#   HPCSCALE_BINDS         what the image sees beside the working folder and FOLDER, a line each, as for `apptainer --bind`
#   HPCSCALE_PASS          names of more variables to pass into the image
#   HPCSCALE_ENV_NAME      what NAME shall be in the image; outside, it is not set
#   HPCSCALE_NVIDIA        1: the GPUs of a node are for the image, though Slurm does not hand them out
#   HPCSCALE_RETRIES       requeue after so many failures, then give up     [5]
#   HPCSCALE_INTERFACE     network interface between the ranks              [found by the route]
#   HPCSCALE_BACKEND       horovod or torch, the library between the ranks  [as the recipe says]
#   HPCSCALE_MEET_SECONDS  that ranks wait for one another                  [300]
#   HPCSCALE_LAUNCHER      mpi, and HPCSCALE_MPI (for srun --mpi), where Horovod shall start by PMIx
#   HPCSCALE_PARTS         of an array's work                               [the number of its tasks]
#
# FOLDER/jobs/ then holds, beside JOB.log and JOB.attempts.jsonl, a folder JOB.K for attempt K:
#   began      a rank has started: its image can be
#   stop       the job was asked to end; ranks look for it between two steps, save, and end with code 75
#   exit.CODE  "RANK NODE" of every rank that ended by itself with a code other than 0
set -uo pipefail

say() { printf 'hpcscale: %s\n' "$*"; }

begin() {
    forget
    asked='' facts=''
    trap 'asked=1 caught=1; [ ! -d "${HPCSCALE_ATTEMPT:-}" ] || : >"$HPCSCALE_ATTEMPT/stop"' USR1 TERM
    cd -P . || exit  # one name for the working folder, the one that `submit` saw
    case $1 in /*) folder=$1 ;; *) folder=$PWD/$1 ;; esac
    facts=$(show)
    own
    # The id of one array task; with the bare SLURM_JOB_ID of the last one, Slurm would requeue the whole array.
    job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
    attempt=${SLURM_RESTART_COUNT:-0}
    attempts=$folder/jobs/$job.attempts.jsonl
    aside
    export HPCSCALE_ATTEMPT=$folder/jobs/$job.$attempt
    mkdir -p -- "$HPCSCALE_ATTEMPT" || exit 1
    [ -z "$asked" ] || : >"$HPCSCALE_ATTEMPT/stop"
    exec >>"$folder/jobs/$job.log" 2>&1
    say "attempt $attempt of job $job on $SLURM_JOB_NODELIST, $(date +'%F %T')"

    case ${HPCSCALE_RETRIES:=5} in
        *[!0-9]*) say "HPCSCALE_RETRIES is $HPCSCALE_RETRIES; it must be a number" && exit 2 ;;
    esac
    touch -- "$attempts"
    lost
    if [ "$(failures "$attempt")" -gt "$HPCSCALE_RETRIES" ]; then  # nodes lost again and again
        say "given up after $(failures "$attempt") failures: $attempts"
        exit 1
    fi
    before=$(checkpoint)
    record begin "$attempt" "\"nodes\":\"$SLURM_JOB_NODELIST\""
    check_image
    # A kill that a node was slow to confirm Slurm sends again, a minute later, to the step of that number, in whatever
    # attempt. So the numbers of this attempt's steps are not those of the one before.
    for _ in $(seq $((attempt % 3))); do srun --nodes=1 --ntasks=1 --mpi=none true 2>/dev/null; done
}

step() {
    local srun=(srun --kill-on-bad-exit=1 --distribution=block --export=ALL --mpi="${HPCSCALE_MPI:-none}")
    local run=("${HPCSCALE_APPTAINER:-apptainer}" exec --cleanenv --no-eval --no-mount 'home,cwd' --pwd "$PWD") bind
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || srun+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")  # not inherited since 22.05
    [ "$SLURM_TASKS_PER_NODE" = 1 ] || srun+=(--label)
    [ -z "${SLURM_GPUS_ON_NODE:-}${HPCSCALE_NVIDIA:-}" ] || run+=(--nv)
    run+=(--mount "$(mount_of "$PWD")")
    case $folder in "$PWD"/*) ;; *) run+=(--mount "$(mount_of "$folder")") ;; esac
    while IFS= read -r bind; do [ -z "$bind" ] || run+=(--bind "$bind"); done <<<"${HPCSCALE_BINDS:-}"

    HPCSCALE_RANKS=$(tasks) "${srun[@]}" bash -c "$(declare -f rank)"$'\nrank "$@"' rank "${run[@]}" "$HPCSCALE_IMAGE" hpcscale "$@" &
    caught=1
    while [ "$caught" = 1 ]; do  # a signal ends `wait` before its time
        caught=0
        wait $!
        code=$?
    done
    return "$code"
}

# shellcheck disable=SC2317  # srun calls it
rank() {  # on every node, for each task: the container, with nothing of the environment but what is named here
    local name code
    trap '' TERM USR1  # of Slurm's signals the batch shell makes a flag; who ignores them hands that on
    unset "${!APPTAINERENV_@}" "${!SINGULARITYENV_@}"
    give() { export "APPTAINERENV_$1=$2" "SINGULARITYENV_$1=$2"; }  # SingularityCE reads its own prefix alone
    for name in SLURM_{PROCID,LOCALID,NODEID,NTASKS,JOB_ID,STEP_ID,RESTART_COUNT,ARRAY_JOB_ID,ARRAY_TASK_ID,JOB_END_TIME} \
        SLURM_STEP_{NUM_TASKS,TASKS_PER_NODE,NODELIST} SLURMD_NODENAME CUDA_VISIBLE_DEVICES OMP_NUM_THREADS \
        HPCSCALE_{ATTEMPT,RANKS,INTERFACE,BACKEND,LAUNCHER,MEET_SECONDS} "${!NCCL_@}" ${HPCSCALE_PASS:-}; do
        [ -z "${!name+set}" ] || give "$name" "${!name}"
    done
    for name in "${!HPCSCALE_ENV_@}"; do give "${name#HPCSCALE_ENV_}" "${!name}"; done
    give PYTHONNOUSERSITE 1
    "$@"
    code=$?
    [ "$code" = 0 ] || echo "$SLURM_PROCID $SLURMD_NODENAME" >>"$HPCSCALE_ATTEMPT/exit.$code"
    [ "$code" = 75 ] && exit 0  # on request: srun must not kill the ranks that are still saving
    exit "$code"
}

finish() {  # by what the ranks left: the code of srun is only the highest of all
    local verdict=retry suspects=() file
    [ "$code" != 0 ] || verdict='done'
    for file in "$HPCSCALE_ATTEMPT"/exit.*; do
        case ${file##*.} in
            '*' | 143) ;;  # there is none; ended by srun because of another
            75) [ "$verdict" = retry ] || verdict=stopped ;;
            70 | 76 | 77) verdict=retry ;;  # an error of the program; another rank was lost; all are stuck when one is
            12[89] | 1[3-9]? | 2??)  # killed; 255 is also the container program's own
                if [ "${file##*.}" = 255 ] && ! began; then
                    no_start "$file"
                    verdict=failed code=255 && break
                fi
                verdict=retry suspects+=("$file") ;;
            *) verdict=failed code=${file##*.} && break ;;  # an error that would come again
        esac
    done
    end "$verdict" "${suspects[@]}"
}

began() { compgen -G "${HPCSCALE_ATTEMPT%.*}.*/began" >/dev/null; }  # a rank, in this attempt or one before

no_start() {  # FILE
    say "the image could not be started on $(cut -d' ' -f2 -- "$1" | sort -u | paste -sd,): exit code 255" \
        "of ${HPCSCALE_APPTAINER:-apptainer}, which says why above; binds and image are those of the site"
}

end() {  # VERDICT [FILE...]: record it, requeue or not, and leave with the exit code of the job
    local free='' blame=''
    case $1 in
        stopped) code=75 && [ "$(checkpoint)" -le "$before" ] || free=,\"free\":true ;;
        retry) blame=$(blame "${@:2}") ;;
    esac
    record end "$attempt" "\"code\":$code,\"verdict\":\"$1\"$free$blame"
    say "attempt $attempt of job $job: $1, exit code $code"
    case $1 in stopped | retry) requeue ;; esac
    exit "$code"
}

requeue() {
    local state failed refused
    failed=$(failures $((attempt + 1)))
    if [ "$failed" -gt "$HPCSCALE_RETRIES" ]; then
        say "not requeued: $failed failures, allowed are $HPCSCALE_RETRIES (HPCSCALE_RETRIES)"
        return
    fi
    trap '' TERM USR1  # requeue makes Slurm end this script; the job can be changed only when it waits again
    # A job that has come to its time limit is ours to requeue. Any other that Slurm is ending was cancelled (and would
    # be requeued all the same), or has lost a node and is requeued already.
    state=$(squeue --noheader --jobs="$job" --states=all --format='%T %r')
    case $state in
        '' | RUNNING* | *TimeLimit)
            refused=$(scontrol requeue "$job" 2>&1) || { sleep 10 && refused=$(scontrol requeue "$job" 2>&1); } || {
                say "not requeued, Slurm refuses: $refused. \`hpcscale resubmit\` goes on from here"
                record requeue "$attempt" "\"refused\":\"$(tr -cd '[:print:]' <<<"$refused" | tr -d '\\"')\""
                return
            } ;;
        *) say "not requeued from here: Slurm has the job as $state" ;;
    esac
    exclude
}

# ---- nodes ----

exclude() {  # nodes that two attempts blame, of kinds of failure that have excluded none, while enough are left
    local spent kind nodes node blamed='' kinds='' bad='' facts kept left needed
    spent=,$(sed -n 's/.*"event":"exclude".*"for":"\([^"]*\)".*/\1/p' "$attempts" | paste -sd,),
    while read -r kind nodes; do
        [[ $spent == *,$kind,* ]] || blamed+=${nodes//,/$'\n'}$'\n' kinds+=$kind$'\n'
    done < <(sed -n 's/.*"blamed":"\([^"]*\)","for":"\([^"]*\)".*/\2 \1/p' "$attempts")
    blamed=$(sort <<<"$blamed" | uniq -d | sed '/^$/d')
    [ -n "$blamed" ] || return 0

    facts=$(show) needed=$(hosts "$SLURM_JOB_NODELIST" | wc -l)
    kept=$(hosts "$(fact ReqNodeList)") left=$(usable)
    for node in $blamed; do
        if [ "$(without "$node" <<<"$left" | wc -l)" -lt "$needed" ] || grep -qxF -- "$node" <<<"$kept"; then
            say "$node is blamed twice, but stays: without it the job has not the nodes that it needs"
        else
            left=$(without "$node" <<<"$left") bad+=$node$'\n'
        fi
    done
    [ -n "$bad" ] || return 0
    nodes=$(printf %s "$bad" | paste -sd,)
    # What the site or the user excluded stays so.
    scontrol update JobId="$job" ExcNodeList="$({ hosts "$(fact ExcNodeList)" && printf %s "$bad"; } | paste -sd,)" || return 0
    record exclude "$attempt" "\"nodes\":\"$nodes\",\"for\":\"$(sort -u <<<"$kinds" | sed '/^$/d' | paste -sd,)\""
    say "excluded from now on, since two attempts blame it: $nodes"
}

usable() {  # nodes that Slurm could give this job now or when they are free, a line each; rather too few
    local node state features word excluded
    excluded=$(hosts "$(fact ExcNodeList)")
    sinfo --noheader --Node --partition="$(fact Partition)" --format='%N %t %f' | sort -u | while read -r node state features; do
        case $state in down* | dr* | fail* | inval* | unk* | *'*') continue ;; esac
        for word in $(fact Features | tr -c '[:alnum:]_.:\n-' ' '); do  # of whatever expression: all of them
            [ "$word" = null ] || [[ ,$features, == *,$word,* ]] || continue 2
        done
        grep -qxF -- "$node" <<<"$excluded" || echo "$node"
    done
}

without() { grep -vxF -- "$1"; }

hosts() {  # a line for each node of one of Slurm's lists
    case $1 in '' | '(null)') ;; *) scontrol show hostnames "$1" ;; esac
}

blame() {  # [FILE...]: the node that these exit files name, if it is one; without files, nodes that are down
    local nodes kind=down
    if [ $# = 0 ]; then
        nodes=$(down "$SLURM_JOB_NODELIST")
    else
        nodes=$(cut -d' ' -f2 -- "$@" | sort -u | paste -sd,) kind=${1##*.}
        case $nodes in *,*) nodes='' ;; esac
    fi
    blaming "$nodes" "$kind"
}

blaming() { [ -z "$1" ] || printf ',"blamed":"%s","for":"%s"' "$1" "$2"; }

down() { sinfo --noheader --Node --nodes="$1" --states=down --format=%N | sort -u | paste -sd,; }

# ---- records ----

record() {  # EVENT ATTEMPT MEMBERS
    printf '{"event":"%s","attempt":%d,%s,"time":%d}\n' "$1" "$2" "$3" "$(date +%s)" >>"$attempts"
}

failures() {  # ATTEMPTS: how many of them were not for free, as stopping on request behind a new checkpoint is
    local free
    free=$(grep -cs '"free":true' "$attempts")
    echo $(($1 - ${free:-0}))
}

lost() {  # end the record of an attempt whose script ended with its node
    local last nodes number
    last=$(tail -n 1 "$attempts")
    case $last in *'"event":"begin"'*) ;; *) return ;; esac
    number=${last#*'"attempt":'} nodes=${last#*'"nodes":"'}
    record end "${number%%,*}" "\"code\":null,\"verdict\":\"lost\"$(blaming "$(down "${nodes%%\"*}")" down)"
}

checkpoint() {  # the step of the newest, -1 without
    local file number newest=-1
    for file in "$folder"/checkpoints/step-*.json; do
        number=${file##*/step-} number=${number%.json}
        [[ ! $number =~ ^[0-9]+$ ]] || ((10#$number <= newest)) || newest=$((10#$number))
    done
    echo "$newest"
}

aside() {  # some sites count jobs anew: what lies here under this number, and is not of this job, is not to speak for it
    local place=$folder/jobs last
    last=$(tail -n 1 -- "$attempts" 2>/dev/null | sed -n 's/.*"attempt":\([0-9]*\).*/\1/p')
    [ -e "$place/$job.$attempt" ] || [ "${last:--1}" -ge "$attempt" ] || return 0
    last=$place/before-$(date +%s)
    mkdir -p -- "$last" && find "$place" -maxdepth 1 -name "$job.[0-9]*" -exec mv -- {} "$last" \;
    [ ! -e "$attempts" ] || mv -- "$attempts" "$last"
}

# ---- the environment ----

forget() {  # what sbatch brought along from the shell that called it: all of ours that is not named above, ...
    local name
    for name in "${!HPCSCALE_@}"; do
        case ${name#HPCSCALE_} in
            IMAGE | IMAGE_SHA256 | APPTAINER | BINDS | PASS | ENV_* | NVIDIA | RETRIES | INTERFACE | BACKEND | MEET_SECONDS | MPI | PARTS) ;;
            LAUNCHER) [ "${!name}" = mpi ] || unset "$name" ;;
            *) unset "$name" ;;
        esac
    done
    for name in "${!APPTAINER@}" "${!SINGULARITY@}"; do  # ... what would change how the image is started, ...
        case $name in *_TMPDIR | *_CACHEDIR) ;; *) unset "$name" ;; esac
    done
    # ... and what would change what Slurm's programs do here.
    unset "${!SRUN_@}" "${!SQUEUE_@}" "${!SINFO_@}" "${!SCONTROL_@}" "${!SLURM_STEP_@}" "${!SLURM_CPU_BIND@}" "${!SLURM_MEM_PER_@}" \
        SLURM_{CLUSTERS,TIME_FORMAT,STDINMODE,STDOUTMODE,STDERRMODE,REMOTE_CWD,TIMELIMIT,LABELIO,NO_KILL,WAIT,EXACT,OVERLAP,WHOLE}
}

show() {  # what Slurm says of this job, without words of users; as an array's last task it has the number of all
    scontrol show job "$SLURM_JOB_ID" | sed -n "/^JobId=$SLURM_JOB_ID /,/^ *Command=/{ s/ JobName=.*//; /^ *Command=/d; p; }"
}

fact() { sed -n "s,^\(.* \)\?$1=\([^ ]*\).*,\2,p" <<<"$facts" | head -n 1; }

own() {  # what is not of this job, but of one inside which sbatch was called
    local restarts end
    [ -n "$facts" ] || return 0  # Slurm does not say
    [ -n "$(fact ArrayTaskId)" ] || unset "${!SLURM_ARRAY_@}"
    restarts=$(fact Restarts)
    if [ "${restarts:-0}" = 0 ]; then unset SLURM_RESTART_COUNT; else export SLURM_RESTART_COUNT=$restarts; fi
    [ "$(fact CPUs/Task)" = "${SLURM_CPUS_PER_TASK:-}" ] || unset SLURM_CPUS_PER_TASK
    end=$(fact EndTime)  # Slurm itself sets the variable only since 23.02
    case $end in [0-9]*T*) SLURM_JOB_END_TIME=$(date -d "$end" +%s) && export SLURM_JOB_END_TIME ;; esac
}

tasks() {  # of this job; Slurm writes 2(x3),1 for 7
    local sum=${SLURM_TASKS_PER_NODE//,/+}
    sum=${sum//\(x/*}
    sum=${sum//\)/}
    echo $((sum))
}

# ---- the image ----

check_image() {
    local wanted found
    wanted=${HPCSCALE_IMAGE_SHA256:-$(sed -n 's/.*"sha256": *"\([0-9a-f]*\)".*/\1/p' "$HPCSCALE_IMAGE.json")}
    found=$(sha256sum <"$HPCSCALE_IMAGE")
    [ "${found%% *}" != "$wanted" ] || return 0
    say "$HPCSCALE_IMAGE is not the image that was recorded: SHA-256 is ${found%% *}, must be ${wanted:-known}"
    code=1
    end failed
}

mount_of() {  # for `apptainer --mount`, which reads CSV: any path, where --bind would stop at a colon or a comma
    local path=${1//\"/\"\"}
    printf 'type=bind,"source=%s","destination=%s"' "$path" "$path"
}
