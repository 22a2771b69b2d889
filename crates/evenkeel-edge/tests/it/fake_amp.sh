#!/bin/sh
# Stands in for the Amp CLI: writes down how it was started, and behaves as the file `mode` beside it says.
here=$(dirname "$0")
mode=$(cat "$here/mode")
echo "$$" >>"$here/pids"
say() { printf '%s\n' "$1"; }
fields='"suggested_action":"increase_db_pool_size","confidence":0.85,"reasoning":"pool exhausted","recommended_config":{"pool_size":20}'
escaped=$(printf '%s' "$fields" | sed 's/"/\\"/g')
init='{"type":"system","subtype":"init","session_id":"T-1","cwd":"/","tools":[],"mcp_servers":[{"name":"evenkeel","status":"connected"}]}'
submit='{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"So."},{"type":"tool_use","id":"1","name":"mcp__evenkeel__submit_recommendation","input":{'$fields'}}]},"session_id":"T-1"}'

case " $* " in
*" --help "*)
    echo help >>"$here/calls"
    case $mode in
    help_hangs) sleep 600 ;;
    old) say 'Usage: amp [options]  -x, --execute [message]' ;;
    plain) say '--settings-file <v>  -x, --execute [message]  --stream-json' ;;
    *) say '--settings-file <v>  -m, --mode <v>  --mcp-config <v>  --visibility <v>  -x, --execute [message]  --stream-json' ;;
    esac
    exit 0
    ;;
*" permissions test "*)
    echo lock >>"$here/calls"
    [ "$mode" = unlockable ] && exit 0
    exit 2
    ;;
esac

echo ask >>"$here/calls"
n=$(grep -c ask "$here/calls")
env | grep -v -e '^PWD=' -e '^_=' -e '^OLDPWD=' | sort >"$here/env"
pwd >"$here/cwd"
ls -A >"$here/work"
ls -A "$HOME" >"$here/home"
printf '%s\n' "$@" >"$here/args"
previous=
for arg in "$@"; do
    if [ "$previous" = --settings-file ]; then
        cat "$arg" >"$here/settings"
        ls -l "$arg" | cut -c1-10 >"$here/settings_mode"
    fi
    previous=$arg
done
cat >"$here/prompt.$n"

case $mode in
tool)
    say "$init"
    say '{"type":"something_new","a":[1]}'
    say "$submit"
    say '{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"Taken.","is_error":false}]}}'
    say '{"type":"result","subtype":"success","is_error":false,"result":"Done.","num_turns":1}'
    ;;
tool_then_hang)
    say "$submit"
    sleep 600 &
    echo $! >>"$here/pids"
    wait
    ;;
text | plain)
    say "$init"
    say '{"type":"result","subtype":"success","is_error":false,"result":"I would say: ```json {'"$escaped"'} ``` Good luck."}'
    ;;
repair)
    if [ "$n" = 1 ]; then
        say '{"type":"result","subtype":"success","is_error":false,"result":"{\"suggested_action\":\"x\"}"}'
    else
        say '{"type":"result","subtype":"success","is_error":false,"result":"{'"$escaped"'}"}'
    fi
    ;;
garbage)
    say 'not json at all'
    say '{"type":"result","subtype":"success","is_error":false,"result":"I cannot help with that, '"$AMP_API_KEY"'."}'
    ;;
silent) ;;
reported)
    say '{"type":"result","subtype":"error_during_execution","is_error":true,"error":"out of credits for '"$AMP_API_KEY"'"}'
    exit 1
    ;;
hang)
    sleep 600 &
    echo $! >>"$here/pids"
    wait
    ;;
leaves_child)
    sleep 600 >/dev/null 2>&1 </dev/null &
    echo $! >>"$here/pids"
    say "$submit"
    say '{"type":"result","subtype":"success","is_error":false,"result":"Done."}'
    ;;
exit1)
    say "Error: the key $AMP_API_KEY is not valid" >&2
    exit 1
    ;;
loud_exit)
    yes "$AMP_API_KEY" | head -c 300000 >&2
    exit 3
    ;;
endless_line) tr '\0' x </dev/zero ;;
flood) yes "x$(printf '%04000d' 0)" ;;
esac
