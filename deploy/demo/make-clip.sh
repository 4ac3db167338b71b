#!/bin/sh
# Makes the demo's video clip anew: a test picture with a running clock and a tone, twenty seconds of it, as HLS in
# two variants and as one progressive file. The result is committed, so only who changes the clip runs this.
# Needs ffmpeg with libx264. One thread and bit-exact muxing, so that the same ffmpeg makes the same bytes.
set -eu

media="$(cd "$(dirname "$0")" && pwd)/media"
seconds=20
segment=2
rate=15
tone="sine=frequency=440:sample_rate=32000:duration=$seconds"

command -v ffmpeg >/dev/null || { echo "make-clip.sh: ffmpeg is missing; on Debian: apt-get install ffmpeg" >&2; exit 1; }

# encode SIZE VIDEO_BITRATE OUTPUT_OPTIONS...
encode() {
    size=$1 bitrate=$2
    shift 2
    ffmpeg -nostdin -hide_banner -loglevel error -y \
        -f lavfi -i "testsrc2=size=$size:rate=$rate:duration=$seconds" -f lavfi -i "$tone" \
        -map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact -threads 1 \
        -c:v libx264 -preset slow -profile:v main -level:v 3.0 -pix_fmt yuv420p \
        -b:v "$bitrate" -maxrate "$bitrate" -bufsize "$bitrate" \
        -g $((rate * segment)) -keyint_min $((rate * segment)) -sc_threshold 0 \
        -c:a aac -b:a 24k -ac 1 "$@"
}

variant() { # NAME SIZE VIDEO_BITRATE
    mkdir -p "$media/$1"
    encode "$2" "$3" -f hls -hls_time $segment -hls_playlist_type vod -hls_flags independent_segments \
        -hls_segment_filename "$media/$1/%03d.ts" "$media/$1/index.m3u8"
}

rm -rf "$media"
mkdir -p "$media"
variant 180p 320x180 45k
variant 270p 480x270 85k
encode 320x180 45k -movflags +faststart "$media/clip.mp4"

cat > "$media/index.m3u8" <<PLAYLIST
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-STREAM-INF:BANDWIDTH=130000,RESOLUTION=320x180,CODECS="avc1.4d401e,mp4a.40.2"
180p/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=180000,RESOLUTION=480x270,CODECS="avc1.4d401e,mp4a.40.2"
270p/index.m3u8
PLAYLIST

du -sh "$media"
