#!/bin/sh
# Makes the demo's video clip: twenty seconds of a test picture with a running clock and a tone. There are two HLS
# variants, the first of them also as fragmented MP4 for the demo's page, and one progressive file.
# The result is committed, so you only run this to change the clip. It needs ffmpeg with libx264.
# One thread and bit-exact muxing: the same ffmpeg makes the same bytes.
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

# A script in a browser plays fragmented MP4 without converting it. The file names in the playlist are relative to it.
mkdir -p "$media/fmp4"
ffmpeg -nostdin -hide_banner -loglevel error -y -i "$media/180p/index.m3u8" -c copy -bsf:a aac_adtstoasc -map_metadata -1 -fflags +bitexact -flags +bitexact \
    -f hls -hls_time $segment -hls_playlist_type vod -hls_flags independent_segments -hls_segment_type fmp4 \
    -hls_fmp4_init_filename init.mp4 -hls_segment_filename "$media/fmp4/%03d.m4s" "$media/fmp4/index.m3u8"

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
