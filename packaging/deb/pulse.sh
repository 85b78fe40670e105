#!/bin/sh
# The program, on the service's data folder for those who may use it: root and the user pulse.
if [ -z "$PULSE_DATA_DIR" ] && [ -w /var/lib/pulse ]; then
    export PULSE_DATA_DIR=/var/lib/pulse
fi
exec /usr/lib/pulse/pulse "$@"
