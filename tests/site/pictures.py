"Pictures of every kind that a reader may bring, drawn: {file name: bytes}"
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

SIZES = (28, 28), (64, 64), (100, 75), (37, 211), (640, 480), (333, 517), (1, 1), (17, 3), (256, 255), (900, 1203), (48, 90), (131, 32)


def drawn(
    rng, # numpy's random numbers
    size, # width and height
    mode='RGB',
):
    "A picture with edges, a slope and noise"
    w, h = size
    y, x = np.mgrid[:h, :w]
    waves = [np.sin(x/rng.uniform(4, 80) + y/rng.uniform(4, 80)) for _ in range(3)]
    im = Image.fromarray((127 + 100*np.stack(waves, 2) + rng.normal(0, 8, (h, w, 3))).clip(0, 255).astype('uint8'))
    pen = ImageDraw.Draw(im)
    for _ in range(6):
        (a, b), (c, d) = (sorted(rng.integers(0, n + 1, 2).tolist()) for n in size)
        pen.ellipse((a, c, b, d), fill=tuple(rng.integers(0, 256, 3).tolist()))
    if mode in ('LA', 'RGBA'):
        alpha = Image.fromarray((128 + 128*np.sin(x/9 + y/13)).clip(0, 255).astype('uint8'))
        im = im.convert(mode[:-1])
        im.putalpha(alpha)
    return im.convert(mode) if im.mode != mode else im


def saved(im, kind, **kwargs):
    buf = BytesIO()
    im.save(buf, kind, **kwargs)
    return buf.getvalue()


def held(how):
    "EXIF's note on how the camera was held"
    exif = Image.Exif()
    exif[0x0112] = how
    return exif


def jpegs(rng):
    for i, size in enumerate(SIZES):
        for sub in '4:4:4', '4:2:2', '4:2:0':
            for progressive in (False, True):
                how = int(rng.integers(1, 9))
                im, q = drawn(rng, size), int(rng.integers(30, 98))
                extra = dict(restart_marker_blocks=5) if i % 3 == 1 else {}
                raw = saved(im, 'JPEG', quality=q, subsampling=sub, progressive=progressive, exif=held(how), **extra)
                yield f"{size[0]}x{size[1]}-{sub.replace(':', '')}{'-progressive'*progressive}-{how}.jpg", raw
        yield f'{size[0]}x{size[1]}-gray.jpg', saved(drawn(rng, size, 'L'), 'JPEG', quality=85)


def pngs(rng):
    for size in SIZES:
        for mode in ('L', 'RGB', 'RGBA', 'LA', 'P', '1'):
            yield f'{size[0]}x{size[1]}-{mode}.png', saved(drawn(rng, size, mode), 'PNG', exif=held(int(rng.integers(1, 9))))
    im = drawn(rng, (60, 50)).quantize(13)
    yield '60x50-palette-4-bits.png', saved(im, 'PNG', bits=4)
    yield '60x50-palette-transparent.png', saved(im, 'PNG', transparency=3)
    yield '60x50-gray-transparent.png', saved(drawn(rng, (60, 50), 'L'), 'PNG', transparency=77)
    yield '60x50-colour-transparent.png', saved(drawn(rng, (60, 50)), 'PNG', transparency=drawn(rng, (60, 50)).getpixel((3, 3)))
    yield '60x50-gray-16-bits.png', saved(Image.fromarray(rng.integers(0, 2**16, (50, 60)).astype('uint16')), 'PNG')


def others(rng):
    for size in SIZES:
        yield f'{size[0]}x{size[1]}.webp', saved(drawn(rng, size), 'WEBP', quality=80)
        yield f'{size[0]}x{size[1]}-lossless.webp', saved(drawn(rng, size), 'WEBP', lossless=True)
        yield f'{size[0]}x{size[1]}.gif', saved(drawn(rng, size, 'P'), 'GIF')
        yield f'{size[0]}x{size[1]}.bmp', saved(drawn(rng, size), 'BMP')


@cache
def corpus(seed=0, kinds=(jpegs, pngs, others)):
    rng = np.random.default_rng(seed)
    return {name: raw for f in kinds for name, raw in f(rng)}
