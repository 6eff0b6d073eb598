# The package on CPU; by default it runs the demo.
#
#   docker build -t semanticfl .
#   mkdir -p runs
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/runs:/runs" semanticfl
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/runs:/runs" semanticfl \
#       train --config=digits --workdir=mine

FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
COPY constraints/py312.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
RUN wheel="$(echo /tmp/wheels/*.whl)" \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "${wheel}[all]" \
    && rm -r /tmp/wheels /tmp/constraints.txt \
    && mkdir --mode=777 /runs
# Any user may run it, also one whom the image does not know.
ENV HOME=/tmp/home \
    USER=semanticfl \
    XDG_CACHE_HOME=/tmp/home/cache \
    MPLCONFIGDIR=/tmp/home/matplotlib
RUN mkdir --mode=777 /tmp/home
USER 1000:1000
WORKDIR /runs
ENTRYPOINT ["semanticfl"]
CMD ["compare", "--config=digits", "--algorithms=fedavg,semanticfl", "--seeds=0,1,2", "--workdir=demo"]
